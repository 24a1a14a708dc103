# Virtual machines and containers, on the bridges.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  gb = config.services.ghostbridge;
  cfg = gb.virtualisation;
  inherit (lib) mkOption types;
  inherit (gb.network) internalBridge uplinkBridge;

  # libvirt's networks are files; these two point at the store.
  networkFile =
    bridge:
    pkgs.writeText "${bridge}.xml" (
      builtins.replaceStrings [ "ovsbr1" ] [ bridge ] (builtins.readFile "${gb.package.packaging}/libvirt/ovsbr1.xml")
    );
  libvirtNetwork = bridge: [
    "L+ /var/lib/libvirt/qemu/networks/${bridge}.xml - - - - ${networkFile bridge}"
    "L+ /var/lib/libvirt/qemu/networks/autostart/${bridge}.xml - - - - ${networkFile bridge}"
  ];

  displays = pkgs.writeText "novnc" (lib.concatStrings (lib.mapAttrsToList (n: v: "${n}: ${v}\n") cfg.novnc.displays));
in
{
  imports = [
    ./ghostbridge.nix
    ./ghostbridge-ovs.nix
  ];

  options.services.ghostbridge.virtualisation = {
    kvm.enable = lib.mkEnableOption "KVM and QEMU by libvirt, with a network on each bridge";
    lxc.enable = lib.mkEnableOption "LXC, whose containers are on the internal bridge";
    incus.enable = lib.mkEnableOption ''
      Incus, whose instances are on the internal bridge. It stands for LXD,
      which nixpkgs has no more since 25.11
    '';
    docker.enable = lib.mkEnableOption "Docker, which leaves the host's forwarding alone";
    novnc = {
      enable = lib.mkEnableOption "noVNC on 127.0.0.1:6080";
      displays = mkOption {
        type = types.attrsOf (types.strMatching "[A-Za-z0-9.:-]+:[0-9]+");
        default = {
          display0 = "127.0.0.1:5900";
          display1 = "127.0.0.1:5901";
          display2 = "127.0.0.1:5902";
          display3 = "127.0.0.1:5903";
        };
        description = "Screens: a name, and where the virtual machine's VNC listens.";
      };
    };
  };

  config = lib.mkIf gb.enable (
    lib.mkMerge [
      {
        assertions = [
          {
            assertion = !(cfg.kvm.enable || cfg.lxc.enable || cfg.incus.enable) || gb.network.enable;
            message = "GhostBridge: guests are put on the bridges: services.ghostbridge.network.enable = true";
          }
          {
            assertion = !cfg.incus.enable || config.networking.nftables.enable;
            message = "GhostBridge: Incus needs networking.nftables.enable = true";
          }
        ];
      }

      (lib.mkIf cfg.kvm.enable {
        # Which of the two this host has is found out by trying: the other one
        # does not load.
        boot.kernelModules = [
          "kvm-amd"
          "kvm-intel"
          "vhost_net"
        ];
        virtualisation.libvirtd.enable = true;
        virtualisation.libvirtd.onBoot = lib.mkDefault "ignore";
        systemd.tmpfiles.rules = [
          "d /var/lib/libvirt/qemu/networks/autostart 0755 root root -"
        ]
        ++ libvirtNetwork uplinkBridge
        ++ libvirtNetwork internalBridge;
        # Guests' ports are made when the bridge is there.
        systemd.services.libvirtd.after = [ "ovs-bridge-setup.service" ];
      })

      (lib.mkIf cfg.lxc.enable {
        virtualisation.lxc.enable = true;
        # The bridge is Open vSwitch's: LXC sees that, and asks ovs-vsctl.
        virtualisation.lxc.defaultConfig = ''
          lxc.net.0.type = veth
          lxc.net.0.link = ${internalBridge}
          lxc.net.0.flags = up
        '';
      })

      (lib.mkIf cfg.incus.enable {
        virtualisation.incus.enable = true;
        virtualisation.incus.preseed = {
          profiles = [
            {
              name = "default";
              devices = {
                eth0 = {
                  name = "eth0";
                  type = "nic";
                  nictype = "bridged";
                  parent = internalBridge;
                };
                root = {
                  path = "/";
                  pool = "default";
                  type = "disk";
                };
              };
            }
          ];
          storage_pools = [
            {
              name = "default";
              driver = "dir";
            }
          ];
        };
      })

      (lib.mkIf cfg.docker.enable {
        virtualisation.docker.enable = true;
        virtualisation.docker.enableOnBoot = lib.mkDefault true;
        # Its policy for forwarded packets is to drop them, guests' on the
        # internal bridge too; Docker 28 can leave that alone.
        virtualisation.docker.daemon.settings = {
          "ip-forward-no-drop" = true;
          live-restore = true;
        };
      })

      (lib.mkIf cfg.novnc.enable {
        services.ghostbridge.units = [ "novnc.service" ];
        services.ghostbridge.tools.websockify = "${pkgs.python3Packages.websockify}/bin/websockify";
        services.ghostbridge.shares.novnc = "${pkgs.novnc}/share/webapps/novnc";
        environment.etc."ghostbridge/novnc".source = displays;
      })
    ]
  );
}
