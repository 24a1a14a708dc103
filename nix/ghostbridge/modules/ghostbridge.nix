# What the other modules build on: the package, its settings, and the map from
# the package's own unit files (nix/units.nix, the same source that the Debian
# package comes from) onto NixOS. The other modules only say which units a host
# has.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.ghostbridge;
  inherit (lib) mkOption types;

  source = cfg.package.units {
    bin = n: "${cfg.package}/bin/${n}";
    tool = n: cfg.tools.${n};
    share = n: cfg.shares.${n};
  };

  scalar =
    v:
    if builtins.isBool v then
      (if v then "yes" else "no")
    else if builtins.isInt v then
      toString v
    else
      v;
  # A setting of the package's gives way to anybody's without mkForce. A list is
  # a key that stands several times; both stay as they are.
  settings = builtins.mapAttrs (_: v: lib.mkDefault (if builtins.isList v then map scalar v else scalar v));
  wanted = unit: lib.optional (unit ? Install && unit.Install ? WantedBy) unit.Install.WantedBy;

  kindOf = name: lib.last (lib.splitString "." name);
  baseOf = name: lib.removeSuffix ".${kindOf name}" name;
  ofKind =
    kind: translate:
    builtins.listToAttrs (
      map (name: lib.nameValuePair (baseOf name) (translate source.units.${name})) (
        builtins.filter (name: kindOf name == kind && source.units ? ${name}) cfg.units
      )
    );
  missing = builtins.filter (name: !(source.units ? ${name})) cfg.units;
  common = unit: {
    description = unit.Unit.Description;
    unitConfig = settings (removeAttrs unit.Unit [ "Description" ]);
    wantedBy = wanted unit;
    aliases = lib.optional (unit ? Install && unit.Install ? Alias) unit.Install.Alias;
  };

  # sysusers.d(5) and tmpfiles.d(5) of the package, line by line.
  words = line: builtins.filter (w: builtins.isString w && w != "") (builtins.split " +" line);
  typed = letter: lines: builtins.filter (line: lib.hasPrefix "${letter} " line) lines;
  userOf =
    line:
    let
      m = builtins.match "u ([^ ]+) - \"([^\"]*)\" ([^ ]+) -" line;
    in
    lib.nameValuePair (builtins.elemAt m 0) {
      isSystemUser = true;
      group = builtins.elemAt m 0;
      description = builtins.elemAt m 1;
    };
  users = map userOf (typed "u" source.sysusers);
in
{
  options.services.ghostbridge = {
    enable = lib.mkEnableOption "GhostBridge, which records every change of this host in a log that nobody can rewrite";

    package = mkOption {
      type = types.package;
      default = pkgs.ghostbridge;
      defaultText = lib.literalExpression "pkgs.ghostbridge";
      description = "The package, with the six programs and, as its attribute units, its unit files.";
    };

    settings = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        GB_ORIGIN = "host.example/log";
      };
      description = ''
        Flags of the programs by their environment variables, which the man
        pages name. They become /etc/default/ghostbridge, which every service
        reads. GB_ORIGIN, the log's name, is set once, before the first boot.
      '';
    };

    units = mkOption {
      type = types.listOf types.str;
      default = [ ];
      internal = true;
      description = "Names of the package's units that this host has.";
    };

    tools = mkOption {
      type = types.attrsOf types.str;
      default = { };
      internal = true;
      description = "Programs of others that units start: name and path.";
    };

    shares = mkOption {
      type = types.attrsOf types.str;
      default = { };
      internal = true;
      description = "Directories of others that units name.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = missing == [ ];
        message = "GhostBridge: services.ghostbridge.package has no unit ${toString missing}: it is older than these modules";
      }
    ];

    environment.systemPackages = [ cfg.package ];

    environment.etc = {
      "default/ghostbridge".text = lib.concatStrings (lib.mapAttrsToList (n: v: "${n}=${v}\n") cfg.settings);
      "ghostbridge/writers.json".source = "${cfg.package.packaging}/writers.json";
      "ghostbridge/ovs-status.sh" = {
        source = "${cfg.package.packaging}/ovs-status.sh";
        mode = "0755";
      };
      "ghostbridge/query-blockchain.sh" = {
        source = "${cfg.package.packaging}/query-blockchain.sh";
        mode = "0755";
      };
      "ghostbridge/test-dbus.sh" = {
        source = "${cfg.package.packaging}/test-dbus.sh";
        mode = "0755";
      };
    };

    users.users = builtins.listToAttrs users;
    users.groups = builtins.listToAttrs (
      map (u: lib.nameValuePair u.name { }) users
      ++ map (line: lib.nameValuePair (builtins.elemAt (words line) 1) { }) (typed "g" source.sysusers)
    );
    systemd.tmpfiles.rules = builtins.filter (line: !lib.hasPrefix "#" line) source.tmpfiles;

    services.ghostbridge.tools.journalctl = "${config.systemd.package}/bin/journalctl";

    systemd.services = ofKind "service" (
      unit:
      common unit
      // {
        serviceConfig = settings unit.Service;
        # Restarted by its new version at a switch, not stopped for its length.
        stopIfChanged = false;
      }
    );
    systemd.sockets = ofKind "socket" (unit: common unit // { socketConfig = settings unit.Socket; });
    systemd.timers = ofKind "timer" (unit: common unit // { timerConfig = settings unit.Timer; });
    systemd.paths = ofKind "path" (unit: common unit // { pathConfig = settings unit.Path; });
  };
}
