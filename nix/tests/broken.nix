# Configurations that break what the host must hold, and what they are told.
# monitoring: of a module that nixos.nix leaves out on an older NixOS.
{ lib }:
let
  force = lib.mkForce;
in
{
  grub = {
    says = "systemd-boot";
    config.boot.loader.grub.enable = true;
  };
  no-systemd-boot = {
    says = "systemd-boot";
    config.boot.loader.systemd-boot.enable = force false;
  };
  rsa-host-key = {
    says = "another key than Ed25519";
    config.services.openssh.hostKeys = [
      {
        type = "rsa";
        bits = 4096;
        path = "/etc/ssh/ssh_host_rsa_key";
      }
    ];
  };
  no-host-key = {
    says = "another key than Ed25519";
    config.services.openssh.hostKeys = force [ ];
  };
  no-networkd = {
    says = "need systemd-networkd";
    config.networking.useNetworkd = force false;
  };
  network-manager = {
    says = "NetworkManager";
    config.networking.networkmanager.enable = force true;
  };
  vswitches = {
    says = "networking.vswitches names";
    config.networking.vswitches.ovsbr0.interfaces.ens1 = { };
  };
  offload = {
    says = "an offload of ens1 is on";
    config.systemd.network.links."10-ens1".linkConfig.GenericReceiveOffload = true;
  };
  hw-offload = {
    says = "hw_offload is on";
    config.services.ghostbridge.network.extra.hw_offload = true;
  };
  one-bridge = {
    says = "are the same";
    config.services.ghostbridge.network.internalBridge = "ovsbr0";
  };
  no-gateway = {
    says = "without a gateway";
    config.services.ghostbridge.network.address = "192.0.2.7/24";
  };
  timing-not-mounted = {
    says = "is to be the btrfs subvolume @blockchain-timing";
    config.fileSystems."/var/lib/blockchain-timing".fsType = force "ext4";
  };
  timing-other-subvolume = {
    says = "is to be the btrfs subvolume @blockchain-timing";
    config.fileSystems."/var/lib/blockchain-timing".options = force [ "subvol=@home" ];
  };
  vectors-not-mounted = {
    says = "is to be the btrfs subvolume @blockchain-vectors";
    config.fileSystems."/var/lib/blockchain-vectors".fsType = force "xfs";
  };
  mounted-below = {
    says = "something is mounted below";
    config.fileSystems."/var/lib/blockchain-timing/log".fsType = "btrfs";
  };
  key-in-store = {
    says = "Qdrant's key is in the Nix store";
    config.services.ghostbridge.storage.qdrant.credentialFile = "${builtins.storeDir}/key.yaml";
  };
  index-without-qdrant = {
    says = "useAsIndex without";
    config.services.ghostbridge.storage.qdrant = {
      enable = force false;
      useAsIndex = true;
    };
  };
  two-qdrants = {
    says = "two of them on one port";
    config.services.qdrant.enable = true;
  };
  no-such-unit = {
    says = "has no unit blockchain-nothing.service";
    config.services.ghostbridge.units = [ "blockchain-nothing.service" ];
  };
  no-storage = {
    says = "dbus without storage";
    config.services.ghostbridge.storage.enable = force false;
  };
  no-polkit = {
    says = "without polkit nobody is authorised";
    config.security.polkit.enable = force false;
  };
  no-bridges = {
    says = "guests are put on the bridges";
    config.services.ghostbridge.network.enable = force false;
  };
  no-nftables = {
    says = "Incus needs";
    config.networking.nftables.enable = force false;
  };
  no-web = {
    monitoring = true;
    says = "monitoring without services.ghostbridge.dbus.web";
    config.services.ghostbridge.dbus.web.enable = force false;
  };
  grafana-key-in-store = {
    monitoring = true;
    says = "Grafana's secret key is in the Nix store";
    config.services.ghostbridge.monitoring.grafana.secretKeyFile = "${builtins.storeDir}/key";
  };
}
