# The bridges: ovsbr0 with the uplink in it, ovsbr1 for what lives on this host.
# gb-ovs-setup brings them up before systemd-networkd, in one transaction, and
# takes nothing down that is as it should be; networking.vswitches, which makes
# a bridge anew each time, must not name them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  gb = config.services.ghostbridge;
  cfg = gb.network;
  inherit (lib) mkOption types;

  cidr = types.strMatching "[0-9a-fA-F.:]+/[0-9]+";
  device = types.strMatching "[A-Za-z0-9._@][A-Za-z0-9._@-]{0,14}";

  # What NICs do to frames behind a switch's back: merged and segmented ones
  # came out malformed at the far end.
  offloads = {
    GenericReceiveOffload = false;
    LargeReceiveOffload = false;
    GenericSegmentationOffload = false;
    TCPSegmentationOffload = false;
    TCP6SegmentationOffload = false;
  };

  desired = lib.recursiveUpdate {
    bridges = {
      ${cfg.uplinkBridge} = {
        ports.${cfg.uplink}.type = "uplink";
        flows = {
          default = true;
          leak_guard = [ cfg.internalNetwork ];
        };
      };
      ${cfg.internalBridge}.flows.default = true;
    };
    hw_offload = false;
  } cfg.extra;

  json = pkgs.writeText "ovs.json" (builtins.toJSON desired);
  bridges = [
    cfg.uplinkBridge
    cfg.internalBridge
  ];
  link = config.systemd.network.links."10-${cfg.uplink}".linkConfig or { };
in
{
  imports = [ ./ghostbridge.nix ];

  options.services.ghostbridge.network = {
    enable = lib.mkEnableOption "the bridges ovsbr0 and ovsbr1 in Open vSwitch";

    uplink = mkOption {
      type = device;
      default = "ens1";
      description = "The NIC that leads outside; it becomes a port of the uplink bridge, which takes over its MAC address.";
    };
    uplinkBridge = mkOption {
      type = device;
      default = "ovsbr0";
      description = "The bridge with the uplink in it. Its own port has this host's address.";
    };
    address = mkOption {
      type = types.nullOr cidr;
      default = null;
      example = "192.0.2.7/24";
      description = "This host's address on the uplink bridge; null for DHCP.";
    };
    gateway = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "192.0.2.1";
      description = "The default gateway, where the address is not from DHCP.";
    };
    nameServers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "DNS servers, where the address is not from DHCP.";
    };

    internalBridge = mkOption {
      type = device;
      default = "ovsbr1";
      description = "The bridge of virtual machines and containers.";
    };
    internalNetwork = mkOption {
      type = cidr;
      default = "10.0.1.0/24";
      description = "Its network. Frames with these addresses may not appear on the uplink bridge.";
    };
    internalAddress = mkOption {
      type = cidr;
      default = "10.0.1.1/24";
      description = "This host's address there: the gateway of that network.";
    };
    dhcpServer = mkOption {
      type = types.bool;
      default = true;
      description = "Whether systemd-networkd gives addresses to who is on the internal bridge.";
    };
    nat = mkOption {
      type = types.bool;
      default = true;
      description = "Whether what is on the internal bridge reaches the outside, by the address of this host.";
    };
    killSwitch = mkOption {
      type = types.nullOr device;
      default = null;
      example = "wg0";
      description = "A tunnel interface: what does not leave through it is dropped, also while it is down.";
    };

    extra = mkOption {
      type = types.attrs;
      default = { };
      example = {
        bridges.ovsbr1.flows.isolate = [ "ovsbr0" ];
      };
      description = "Merged into /etc/ghostbridge/ovs.json; gb-ovs-setup schema says what there is.";
    };
  };

  config = lib.mkIf (gb.enable && cfg.enable) {
    assertions = [
      {
        assertion = config.networking.useNetworkd && config.systemd.network.enable;
        message = "GhostBridge: the bridges need systemd-networkd: networking.useNetworkd = true";
      }
      {
        assertion = !config.networking.networkmanager.enable;
        message = "GhostBridge: NetworkManager would take the uplink from its bridge: networking.networkmanager.enable = false";
      }
      {
        assertion = builtins.all (b: !(config.networking.vswitches ? ${b})) bridges;
        message = "GhostBridge: networking.vswitches names ${toString bridges}, which gb-ovs-setup keeps; it would delete them at each switch";
      }
      {
        assertion = builtins.all (k: (link.${k} or null) == false) (builtins.attrNames offloads);
        message = "GhostBridge: an offload of ${cfg.uplink} is on: systemd.network.links.\"10-${cfg.uplink}\".linkConfig";
      }
      {
        assertion = desired.hw_offload == false;
        message = "GhostBridge: hw_offload is on in services.ghostbridge.network.extra: frames would pass the switch by";
      }
      {
        assertion = cfg.uplinkBridge != cfg.internalBridge;
        message = "GhostBridge: uplinkBridge and internalBridge are the same";
      }
      {
        assertion = cfg.address == null || cfg.gateway != null;
        message = "GhostBridge: services.ghostbridge.network.address without a gateway";
      }
    ];

    virtualisation.vswitch.enable = true;
    # Debian's name of the database's unit, by which the package's units order
    # themselves, and the README's of the switch's.
    systemd.services.ovsdb.aliases = [ "ovsdb-server.service" ];
    systemd.services.ovs-vswitchd.aliases = [ "openvswitch.service" ];

    services.ghostbridge.units = [
      "ovs-bridge-setup.service"
      "ovs-bridge-watch.service"
      "ovs-switch.socket"
      "ovs-switch@.service"
      "blockchain-ovs.service"
    ];
    environment.etc."ghostbridge/ovs.json".source = json;
    # A new configuration is applied by the switch to it.
    systemd.services.ovs-bridge-setup.restartTriggers = [ json ];

    networking.useNetworkd = lib.mkDefault true;
    networking.useDHCP = lib.mkDefault false;
    systemd.network = {
      enable = true;
      links."10-${cfg.uplink}" = {
        matchConfig.OriginalName = cfg.uplink;
        linkConfig = builtins.mapAttrs (_: lib.mkDefault) offloads;
      };
      networks = {
        # A port of the bridge, without an address of its own.
        "10-${cfg.uplink}" = {
          matchConfig.Name = cfg.uplink;
          networkConfig = {
            DHCP = "no";
            LinkLocalAddressing = "no";
            LLDP = "no";
          };
          linkConfig.RequiredForOnline = "no";
        };
        "20-${cfg.uplinkBridge}" = {
          matchConfig.Name = cfg.uplinkBridge;
          networkConfig =
            if cfg.address == null then
              { DHCP = "yes"; }
            else
              {
                Address = cfg.address;
                Gateway = cfg.gateway;
                DNS = cfg.nameServers;
              };
          linkConfig.RequiredForOnline = "routable";
        };
        "30-${cfg.internalBridge}" = {
          matchConfig.Name = cfg.internalBridge;
          networkConfig = {
            Address = cfg.internalAddress;
            ConfigureWithoutCarrier = true;
            DHCPServer = cfg.dhcpServer;
          };
          linkConfig.RequiredForOnline = "no";
        };
      };
      # A host without its network boots all the same.
      wait-online.anyInterface = lib.mkDefault true;
      wait-online.timeout = lib.mkDefault 30;
    };

    # The same rules that gb-ovs-setup render nftables prints. A table and not
    # the ruleset, which would flush everybody's, Docker's too.
    networking.nftables.enable = lib.mkDefault true;
    networking.nftables.tables.ghostbridge = lib.mkIf cfg.nat (
      let
        out = if cfg.killSwitch == null then cfg.uplinkBridge else cfg.killSwitch;
        b = cfg.internalBridge;
      in
      {
        family = "inet";
        content = ''
          chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr ${cfg.internalNetwork} oifname "${out}" masquerade
          }
          chain forward {
            type filter hook forward priority filter; policy accept;
            iifname "${b}" oifname "${b}" accept
            iifname "${b}" oifname "${out}" accept
            iifname "${b}" counter drop
            oifname "${b}" ct state established,related accept
            oifname "${b}" counter drop
          }
        '';
      }
    );
    boot.kernel.sysctl."net.ipv4.ip_forward" = lib.mkIf cfg.nat (lib.mkDefault 1);
    networking.firewall.interfaces.${cfg.internalBridge} = lib.mkIf cfg.dhcpServer { allowedUDPPorts = [ 67 ]; };
  };
}
