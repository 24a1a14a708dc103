# The log, its snapshots each second, and the index that is made from them; and
# the file systems below. Options of a mount, such as compression, hold for a
# whole btrfs, whatever the first mount of it says: what one subvolume shall be
# is said here by properties of its directories.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  gb = config.services.ghostbridge;
  cfg = gb.storage;
  inherit (lib) mkOption types;

  timing = "/var/lib/blockchain-timing";
  vectors = "/var/lib/blockchain-vectors";
  mount = dir: config.fileSystems.${dir} or { fsType = null; options = [ ]; };
  source = gb.package.units { };
  inQdrant = source.dropins.qdrant;
  isSubvolume = dir: name: (mount dir).fsType == "btrfs" && builtins.elem "subvol=${name}" (mount dir).options;
in
{
  imports = [ ./ghostbridge.nix ];

  options.services.ghostbridge.storage = {
    enable = lib.mkEnableOption "the log, its snapshots and the index";

    snapshots = {
      grid = mkOption {
        type = types.strMatching "[0-9]+x[0-9]+[smhdw](,[0-9]+x[0-9]+[smhdw])*";
        default = "60x1s,60x1m,24x1h,30x1d";
        description = "Which snapshots stay: so many of each interval.";
      };
      maxCount = mkOption {
        type = types.ints.between 2 100000;
        default = 200;
        description = "How many stay at most.";
      };
      minFree = mkOption {
        type = types.strMatching "[0-9]+[KMGT]?";
        default = "2G";
        description = "Below so much free space the oldest go, and none is taken.";
      };
    };

    workDirectory = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/work";
      description = ''
        A directory whose new files are not copied on write, and so neither
        compressed nor checked: for what is large, rewritten in place and
        can be made anew.
      '';
    };

    qdrant = {
      enable = lib.mkEnableOption "Qdrant on 127.0.0.1:6333, with its storage on @blockchain-vectors";
      package = mkOption {
        type = types.package;
        default = pkgs.qdrant;
        defaultText = lib.literalExpression "pkgs.qdrant";
        description = "Qdrant's package.";
      };
      webInterface = mkOption {
        type = types.nullOr types.path;
        default = null;
        description = "Files of Qdrant's dashboard, served at /dashboard.";
      };
      credentialFile = mkOption {
        type = types.path;
        default = "/etc/ghostbridge/qdrant.yaml";
        description = ''
          A file of root's, not in the Nix store, with the key that who asks
          must have: service: {api_key: KEY}. systemd hands it to Qdrant as a
          credential; without it Qdrant does not start. INSTALL.md makes one.
        '';
      };
      keyFile = mkOption {
        type = types.path;
        default = "/etc/ghostbridge/qdrant-key";
        description = ''
          A file of root's, not in the Nix store, with the same key alone. systemd
          hands it to the ingester and the search, and to Prometheus.
        '';
      };
      useAsIndex = mkOption {
        type = types.bool;
        default = false;
        description = "Whether the index is kept in Qdrant; else in the file index.db, by the engine that is built in.";
      };
    };
  };

  config = lib.mkIf (gb.enable && cfg.enable) {
    assertions = [
      {
        assertion = isSubvolume timing "@blockchain-timing";
        message = "GhostBridge: ${timing} is to be the btrfs subvolume @blockchain-timing, of which a snapshot is taken each second";
      }
      {
        assertion = isSubvolume vectors "@blockchain-vectors";
        message = "GhostBridge: ${vectors} is to be the btrfs subvolume @blockchain-vectors";
      }
      {
        assertion = builtins.all (dir: dir == timing || !lib.hasPrefix "${timing}/" dir) (builtins.attrNames config.fileSystems);
        message = "GhostBridge: something is mounted below ${timing}: snapshots of it would not have it";
      }
      {
        assertion = !lib.hasPrefix builtins.storeDir (toString cfg.qdrant.credentialFile) && !lib.hasPrefix builtins.storeDir (toString cfg.qdrant.keyFile);
        message = "GhostBridge: Qdrant's key is in the Nix store, where everybody can read it";
      }
      {
        assertion = !cfg.qdrant.useAsIndex || cfg.qdrant.enable;
        message = "GhostBridge: storage.qdrant.useAsIndex without storage.qdrant.enable";
      }
      {
        assertion = !cfg.qdrant.enable || !(config.services.qdrant.enable or false);
        message = "GhostBridge: services.qdrant.enable as well: two of them on one port";
      }
    ];

    services.ghostbridge.units =
      [
        "blockchain-log.socket"
        "blockchain-log.service"
        "blockchain-journal.service"
        "blockchain-rotate.timer"
        "blockchain-rotate.service"
        "btrfs-snapshot.timer"
        "btrfs-snapshot.service"
        "btrfs-vector-sync.path"
        "btrfs-vector-sync.service"
        "gb-vecsync.socket"
        "gb-vecsync@.service"
        "blockchain-search.socket"
        "blockchain-search.service"
      ]
      ++ lib.optional cfg.qdrant.enable "qdrant.service";

    services.ghostbridge.settings =
      {
        GB_SNAP_GRID = cfg.snapshots.grid;
        GB_SNAP_MAX_COUNT = toString cfg.snapshots.maxCount;
        GB_SNAP_MIN_FREE = cfg.snapshots.minFree;
      }
      // lib.optionalAttrs cfg.qdrant.useAsIndex {
        GB_INDEX = "qdrant://127.0.0.1:6334";
      };
    services.ghostbridge.tools = lib.mkIf cfg.qdrant.enable { qdrant = "${cfg.qdrant.package}/bin/qdrant"; };
    services.ghostbridge.shares = lib.mkIf cfg.qdrant.enable {
      "qdrant/static" = if cfg.qdrant.webInterface == null then "/var/empty" else toString cfg.qdrant.webInterface;
    };
    systemd.services = lib.mkMerge [
      (lib.mkIf cfg.qdrant.enable {
        qdrant.serviceConfig.LoadCredential = "qdrant.yaml:${toString cfg.qdrant.credentialFile}";
      })
      # The ingester and the search, as the package's drop-in has them.
      (lib.mkIf cfg.qdrant.useAsIndex (
        builtins.listToAttrs (
          map (
            unit:
            lib.nameValuePair (lib.removeSuffix ".service" unit) {
              unitConfig.After = builtins.concatStringsSep " " (
                lib.optional (source.units.${unit}.Unit ? After) source.units.${unit}.Unit.After ++ [ inQdrant.Unit.After ]
              );
              # GB_INDEX is said in settings, for all.
              serviceConfig = removeAttrs inQdrant.Service [ "Environment" ] // {
                LoadCredential = "qdrant-key:${toString cfg.qdrant.keyFile}";
              };
            }
          ) inQdrant.units
        )
      ))
    ];

    # Only on new files of an empty directory, as the kernel has it.
    systemd.tmpfiles.rules = lib.optional (cfg.workDirectory != null) "h ${toString cfg.workDirectory} - - - - +C";
    # Bits that turn are found, and mended where there is a second copy. One
    # directory stands for all of its btrfs.
    services.btrfs.autoScrub.enable = lib.mkDefault true;
    services.btrfs.autoScrub.fileSystems = [ timing ];
  };
}
