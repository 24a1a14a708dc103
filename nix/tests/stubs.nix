# The options of NixOS that our modules set or read, as NixOS 26.05 has them, by
# name and kind alone: a key that is misspelt or of the wrong type is found,
# what NixOS makes of it is not.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (types) anything;
  option =
    type: default:
    mkOption {
      inherit type default;
      description = "NixOS' own.";
    };
  flag = option types.bool;
  list = type: option (types.listOf type) [ ];
  text = option types.lines "";
  any = option anything { };
  section = option (types.attrsOf anything) { };

  unit = {
    description = option types.str "";
    unitConfig = section;
    wantedBy = list types.str;
    after = list types.str;
    aliases = list types.str;
    restartTriggers = list anything;
  };
  units = more: option (types.attrsOf (types.submodule { options = unit // more; })) { };
in
{
  options = {
    assertions = list anything;

    boot = {
      initrd.availableKernelModules = list types.str;
      kernel.sysctl = section;
      kernelModules = list types.str;
      loader.efi.canTouchEfiVariables = flag false;
      loader.grub.enable = flag false;
      loader.systemd-boot.configurationLimit = option types.int 0;
      loader.systemd-boot.enable = flag false;
      supportedFilesystems = list types.str;
    };
    environment = {
      etc = option (types.attrsOf (
        types.submodule {
          options = {
            text = option (types.nullOr types.lines) null;
            source = option types.path "/dev/null";
            mode = option types.str "symlink";
          };
        }
      )) { };
      systemPackages = list types.package;
    };
    fileSystems = option (types.attrsOf (
      types.submodule {
        options = {
          device = option types.str "";
          fsType = option types.str "auto";
          options = list types.str;
        };
      }
    )) { };
    hardware = {
      cpu.amd.updateMicrocode = flag false;
      cpu.intel.updateMicrocode = flag false;
      enableRedistributableFirmware = flag false;
    };
    networking = {
      firewall.interfaces = option (types.attrsOf (types.submodule { options.allowedUDPPorts = list types.int; })) { };
      hostName = option types.str "nixos";
      networkmanager.enable = flag false;
      nftables.enable = flag false;
      nftables.tables = option (types.attrsOf (
        types.submodule {
          options = {
            family = option types.str "";
            content = text;
          };
        }
      )) { };
      useDHCP = flag true;
      useNetworkd = flag false;
      vswitches = any;
    };
    nix.settings = any;
    nixpkgs.hostPlatform = option types.str "";
    nixpkgs.overlays = list anything;
    security.polkit.enable = flag false;
    services = {
      btrfs.autoScrub.enable = flag false;
      btrfs.autoScrub.fileSystems = list types.str;
      dbus.packages = list types.package;
      grafana = {
        enable = flag false;
        settings = any;
        provision.enable = flag false;
        provision.datasources.settings = any;
        provision.dashboards.settings = any;
      };
      openssh.enable = flag false;
      openssh.hostKeys = list anything;
      openssh.settings = any;
      prometheus = {
        enable = flag false;
        listenAddress = option types.str "0.0.0.0";
        port = option types.int 9090;
        retentionTime = option (types.nullOr types.str) null;
        globalConfig = any;
        ruleFiles = list types.path;
        scrapeConfigs = list anything;
        checkConfig = option anything true;
        exporters.node = {
          enable = flag false;
          listenAddress = option types.str "0.0.0.0";
          enabledCollectors = list types.str;
          extraFlags = list types.str;
        };
      };
      qdrant.enable = flag false;
    };
    swapDevices = list anything;
    system.stateVersion = option types.str "";
    systemd = {
      package = option types.package { };
      services = units {
        serviceConfig = section;
        stopIfChanged = flag true;
      };
      sockets = units { socketConfig = section; };
      timers = units { timerConfig = section; };
      paths = units { pathConfig = section; };
      tmpfiles.rules = list types.str;
      network = {
        enable = flag false;
        links = option (types.attrsOf (
          types.submodule {
            options = {
              matchConfig = section;
              linkConfig = section;
            };
          }
        )) { };
        networks = option (types.attrsOf (
          types.submodule {
            options = {
              matchConfig = section;
              networkConfig = section;
              linkConfig = section;
            };
          }
        )) { };
        wait-online.anyInterface = flag false;
        wait-online.timeout = option types.int 120;
      };
    };
    time.timeZone = option (types.nullOr types.str) null;
    users = {
      users = option (types.attrsOf (
        types.submodule {
          options = {
            isNormalUser = flag false;
            isSystemUser = flag false;
            group = option types.str "";
            extraGroups = list types.str;
            description = option types.str "";
            openssh.authorizedKeys.keys = list types.str;
          };
        }
      )) { };
      groups = option (types.attrsOf (types.submodule { options.members = list types.str; })) { };
    };
    virtualisation = {
      docker.enable = flag false;
      docker.enableOnBoot = flag false;
      docker.daemon.settings = any;
      incus.enable = flag false;
      incus.preseed = any;
      libvirtd.enable = flag false;
      libvirtd.onBoot = option types.str "start";
      lxc.enable = flag false;
      lxc.defaultConfig = text;
      vswitch.enable = flag false;
    };
  };
}
