# Renders units.nix as files: an attribute set of path and text.
#
#   nix-instantiate --eval --strict --json -E 'import ./nix/render.nix { }'
{
  bin ? n: "/usr/bin/${n}",
  tool ? n: "/usr/bin/${n}",
  share ? n: "/usr/share/${n}",
}:
let
  source = import ./units.nix { inherit bin tool share; };
  header = "# Generated from nix/units.nix; make units writes it anew.\n";

  sections = [
    "Unit"
    "Socket"
    "Timer"
    "Path"
    "Service"
    "Install"
  ];

  known =
    name: unit:
    let
      unknown = removeAttrs unit (sections ++ [ "comment" ]);
    in
    if unknown == { } then unit else throw "${name}: unknown section ${toString (builtins.attrNames unknown)}";

  scalar =
    v:
    if builtins.isBool v then
      (if v then "yes" else "no")
    else if builtins.isInt v then
      toString v
    else
      v;

  # A list is a key that stands several times.
  setting =
    key: v: builtins.concatStringsSep "" (map (x: "${key}=${scalar x}\n") (if builtins.isList v then v else [ v ]));

  section =
    unit: name:
    if unit ? ${name} then
      "\n[${name}]\n"
      + builtins.concatStringsSep "" (map (k: setting k unit.${name}.${k}) (builtins.attrNames unit.${name}))
    else
      "";

  unitText =
    name: unit:
    header
    + (if unit ? comment then "# ${unit.comment}\n" else "")
    + builtins.concatStringsSep "" (map (section (known name unit)) sections);

  # The same text for each unit that it is for.
  dropin =
    name: d:
    map (unit: {
      name =
        if d.choice or false then
          "drop-ins/${name}/${unit}.d/${name}.conf"
        else
          "${unit}.d/ghostbridge-${name}.conf";
      value = unitText name (
        removeAttrs d [
          "choice"
          "units"
        ]
      );
    }) d.units;

  lines = list: header + builtins.concatStringsSep "" (map (l: "${l}\n") list);
in
builtins.mapAttrs unitText source.units
// builtins.listToAttrs (
  builtins.concatLists (map (n: dropin n source.dropins.${n}) (builtins.attrNames source.dropins))
)
// import ./opdbus.nix
// {
  "sysusers.d/ghostbridge.conf" = lines source.sysusers;
  "tmpfiles.d/ghostbridge.conf" = lines source.tmpfiles;
  # Symbolic links beside the units: name and target.
  "aliases" = lines (map (n: "${n} ${source.aliases.${n}}") (builtins.attrNames source.aliases));
}
