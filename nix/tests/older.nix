# Options that the modules set and a NixOS of 2020 has not, or has in another
# form; see nixos.nix. What is said for them is not looked at.
{ lib, ... }:
let
  any = lib.mkOption {
    type = lib.types.attrs;
    default = { };
  };
  flag = lib.mkOption {
    type = lib.types.bool;
    default = false;
  };
  text = lib.mkOption {
    type = lib.types.str;
    default = "";
  };
in
{
  options = {
    services.openssh.settings = any;
    services.grafana.settings = any;
    services.grafana.provision.dashboards.settings = any;
    virtualisation.docker.daemon.settings = any;
    services.qdrant.enable = flag;
    virtualisation.incus.enable = flag;
    virtualisation.incus.preseed = any;
    networking.nftables.tables = any;
    nixpkgs.hostPlatform = text;
    nix.settings = any;
    systemd.network.wait-online = any;
    services.prometheus.port = lib.mkOption {
      type = lib.types.int;
      default = 0;
    };
    services.prometheus.retentionTime = text;
  };

  # Prometheus' and Grafana's options had other forms throughout.
  config.services.ghostbridge.monitoring.enable = lib.mkForce false;
  # It could not have both.
  config.networking.firewall.enable = false;
  config.networking.nftables.ruleset = "";
  # Its grub has it, which is not used.
  config.nixpkgs.config.permittedInsecurePackages = [ "openssl-1.0.2u" ];
}
