# A stand-in for nixpkgs' lib, as far as our modules use it, for machines that
# have Nix and no nixpkgs: option types, priorities, mkIf, mkMerge, submodules.
# It is stricter, where it is simpler. integration/nix runs everything with the
# real one too, where GB_NIXPKGS names it.
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    elem
    elemAt
    filter
    foldl'
    functionArgs
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    ;

  unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
  show = loc: builtins.concatStringsSep "." loc;
  isType = name: v: isAttrs v && (v._type or null) == name;
  plain = v: isAttrs v && !(v ? _type) && !isDerivation v;
  isDerivation = v: isAttrs v && (v.type or null) == "derivation";

  # What a definition comes to: values with their priorities.
  discharge =
    prio: v:
    if isType "if" v then
      (if v.condition then discharge prio v.content else [ ])
    else if isType "merge" v then
      concatMap (discharge prio) v.contents
    else if isType "override" v then
      discharge v.priority v.content
    else
      [
        {
          inherit prio;
          value = v;
        }
      ];

  # Values of one option: those of the first priority, checked and merged.
  mergeDefinitions =
    loc: type: definitions:
    let
      found = concatMap (discharge 100) definitions;
      best = foldl' (a: d: if d.prio < a then d.prio else a) 9999 found;
      values = map (d: d.value) (filter (d: d.prio == best) found);
      bad = filter (v: !type.check v) values;
    in
    if found == [ ] then
      (
        if type ? empty then
          type.empty
        else
          throw "The option `${show loc}' was accessed but has no value defined"
      )
    else if bad != [ ] then
      throw "A definition for option `${show loc}' is not of type `${type.name}'"
    else
      type.merge loc values;

  one =
    loc: values:
    if all (v: v == head values) values then head values else throw "The option `${show loc}' has conflicting definition values";

  basic = name: check: {
    inherit name check;
    merge = one;
  };

  attrsOf = elementType: {
    name = "attribute set of ${elementType.name}";
    check = v: isAttrs v;
    empty = { };
    merge =
      loc: values:
      listToAttrs (
        concatMap (
          name:
          let
            definitions = concatMap (v: if v ? ${name} then [ v.${name} ] else [ ]) values;
          in
          if concatMap (discharge 100) definitions == [ ] then
            [ ]
          else
            [
              {
                inherit name;
                value = mergeDefinitions (loc ++ [ name ]) elementType definitions;
              }
            ]
        ) (unique (concatMap attrNames values))
      );
  };

  anything = {
    name = "anything";
    check = _: true;
    merge = loc: values: if all plain values then (attrsOf anything).merge loc values else one loc values;
  };

  types = {
    bool = basic "boolean" isBool;
    int = basic "signed integer" isInt;
    str = basic "string" isString;
    lines = {
      name = "strings concatenated with \"\\n\"";
      check = isString;
      merge = _: builtins.concatStringsSep "\n";
    };
    path = basic "absolute path" (v: (isPath v || isString v || v ? outPath) && builtins.substring 0 1 (toString v) == "/");
    package = basic "package" isDerivation;
    attrs = {
      name = "attribute set";
      check = isAttrs;
      empty = { };
      merge = _: foldl' (a: b: a // b) { };
    };
    strMatching = pattern: basic "string matching the pattern ${pattern}" (v: isString v && match pattern v != null);
    ints.between = low: high: basic "integer between ${toString low} and ${toString high}" (v: isInt v && low <= v && v <= high);
    listOf = elementType: {
      name = "list of ${elementType.name}";
      check = isList;
      empty = [ ];
      merge = loc: values: map (v: mergeDefinitions loc elementType [ v ]) (concatLists values);
    };
    nullOr = elementType: {
      name = "null or ${elementType.name}";
      check = v: v == null || elementType.check v;
      merge =
        loc: values:
        if all (v: v == null) values then
          null
        else if any (v: v == null) values then
          throw "The option `${show loc}' is defined both null and not null"
        else
          elementType.merge loc values;
    };
    submodule = module: {
      name = "submodule";
      check = v: isAttrs v;
      empty = (evalModules { modules = [ module ]; }).config;
      merge = loc: values: (evalModules { modules = [ module ] ++ map (v: { config = v; }) values; prefix = loc; }).config;
    };
    inherit attrsOf anything;
  };

  # A module's options and definitions, those of what it imports before.
  collect =
    args: modules:
    let
      load =
        m:
        let
          read = if isPath m || isString m then import m else m;
          raw = if isFunction read then read (builtins.intersectAttrs (functionArgs read) args) else read;
          long = raw ? config || raw ? options;
          unknown = attrNames (
            removeAttrs raw [
              "imports"
              "options"
              "config"
            ]
          );
        in
        if long && unknown != [ ] then
          throw "Module has an unsupported attribute `${head unknown}'"
        else
          {
            key = if isPath m || isString m then toString m else null;
            imports = raw.imports or [ ];
            options = raw.options or { };
            config = if long then raw.config or { } else removeAttrs raw [ "imports" ];
          };
      walk =
        seen: list:
        foldl' (
          state: m:
          let
            key = if isPath m || isString m then toString m else null;
            loaded = load m;
            below = walk (if key == null then state.seen else state.seen ++ [ key ]) loaded.imports;
          in
          if key != null && elem key state.seen then
            state
          else
            {
              inherit (below) seen;
              modules = state.modules ++ below.modules ++ [ loaded ];
            }
        ) { inherit seen; modules = [ ]; } list;
    in
    (walk [ ] modules).modules;

  # The attributes of definitions: conditions and priorities go down to the
  # values, whose names then need none of them.
  push =
    v:
    if isType "if" v then
      map (mapAttrs (_: content: v // { inherit content; })) (push v.content)
    else if isType "override" v then
      map (mapAttrs (_: content: v // { inherit content; })) (push v.content)
    else if isType "merge" v then
      concatMap push v.contents
    else if isAttrs v then
      [ v ]
    else
      throw "a definition that is no attribute set";

  mergeOptions =
    loc: declared:
    listToAttrs (
      map (
        name:
        let
          found = concatMap (d: if d ? ${name} then [ d.${name} ] else [ ]) declared;
          here = loc ++ [ name ];
        in
        {
          inherit name;
          value =
            if !(any (isType "option") found) then
              mergeOptions here found
            else if length found > 1 then
              throw "The option `${show here}' is already declared"
            else
              head found;
        }
      ) (unique (concatMap attrNames declared))
    );

  evaluate =
    loc: options: definitions:
    let
      pushed = concatMap push definitions;
      unknown = filter (name: !(options ? ${name})) (unique (concatMap attrNames pushed));
    in
    if unknown != [ ] then
      throw "The option `${show (loc ++ [ (head unknown) ])}' does not exist"
    else
      mapAttrs (
        name: option:
        let
          here = loc ++ [ name ];
          found = concatMap (d: if d ? ${name} then [ d.${name} ] else [ ]) pushed;
        in
        if isType "option" option then
          mergeDefinitions here option.type (found ++ (if option ? default then [ (mkOverride 1500 option.default) ] else [ ]))
        else
          evaluate here option found
      ) options;

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      args = {
        inherit config options lib;
      }
      // specialArgs;
      loaded = collect args modules;
      options = mergeOptions prefix (map (m: m.options) loaded);
      config = evaluate prefix options (map (m: m.config) loaded);
    in
    {
      inherit config options;
    };

  mkOption = o: o // { _type = "option"; };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };

  lib = {
    inherit
      evalModules
      mkOption
      mkOverride
      types
      unique
      isDerivation
      ;
    mkEnableOption =
      name:
      mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether to enable ${name}.";
      };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    isOption = isType "option";

    last = list: elemAt list (length list - 1);
    optional = condition: x: if condition then [ x ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    nameValuePair = name: value: { inherit name value; };
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    mapAttrsToList = f: set: map (n: f n set.${n}) (attrNames set);
    concatStrings = builtins.concatStringsSep "";
    hasPrefix = p: s: builtins.substring 0 (builtins.stringLength p) s == p;
    removeSuffix =
      suffix: s:
      let
        rest = builtins.stringLength s - builtins.stringLength suffix;
      in
      if rest >= 0 && builtins.substring rest (-1) s == suffix then builtins.substring 0 rest s else s;
    splitString = sep: s: filter isString (builtins.split (builtins.replaceStrings [ "." ] [ "\\." ] sep) s);
    recursiveUpdate =
      a: b:
      a
      // mapAttrs (n: v: if a ? ${n} && isAttrs a.${n} && isAttrs v then lib.recursiveUpdate a.${n} v else v) b;
  };
in
lib
