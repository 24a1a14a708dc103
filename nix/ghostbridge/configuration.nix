# The GhostBridge host. What differs from host to host is in
# hardware-configuration.nix and below "this host".
{ config, pkgs, ... }:
{
  imports = [
    ./hardware-configuration.nix
    ./modules/ghostbridge.nix
    ./modules/ghostbridge-ovs.nix
    ./modules/blockchain-storage.nix
    ./modules/dbus-orchestrator.nix
    ./modules/virtualization.nix
    ./modules/monitoring.nix
  ];

  # This host.
  networking.hostName = "ghostbridge";
  time.timeZone = "UTC";
  users.users.admin = {
    isNormalUser = true;
    extraGroups = [ "wheel" ];
    openssh.authorizedKeys.keys = [
      # "ssh-ed25519 AAAA... admin@example"
    ];
  };

  services.ghostbridge = {
    enable = true;
    network.enable = true;
    network.uplink = "ens1";
    storage = {
      enable = true;
      workDirectory = "/work";
      qdrant.enable = true;
    };
    dbus = {
      enable = true;
      mcp.enable = true;
      web.enable = true;
      web.novncUrl = "http://localhost:6080/vnc.html";
      readers = [ "admin" ];
      operators = [ "admin" ];
      # Nobody approves what they have asked for themselves: name another person.
      approvers = [ ];
    };
    virtualisation = {
      kvm.enable = true;
      lxc.enable = true;
      incus.enable = true;
      docker.enable = true;
      novnc.enable = true;
    };
    monitoring.enable = true;
  };

  # Boots by systemd-boot.
  boot.loader.systemd-boot.enable = true;
  boot.loader.systemd-boot.configurationLimit = 20;
  boot.loader.efi.canTouchEfiVariables = true;
  boot.supportedFilesystems = [ "btrfs" ];

  # The network is systemd-networkd's.
  networking.useNetworkd = true;
  networking.networkmanager.enable = false;

  # SSH by keys, and by Ed25519.
  services.openssh = {
    enable = true;
    hostKeys = [
      {
        type = "ed25519";
        path = "/etc/ssh/ssh_host_ed25519_key";
      }
    ];
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = "no";
    };
  };

  # What the host must hold, beside what each module asserts.
  assertions = [
    {
      assertion = config.boot.loader.systemd-boot.enable && !config.boot.loader.grub.enable;
      message = "GhostBridge: boots by systemd-boot: boot.loader.systemd-boot.enable = true, boot.loader.grub.enable = false";
    }
    {
      assertion = config.services.openssh.hostKeys != [ ] && builtins.all (k: k.type == "ed25519") config.services.openssh.hostKeys;
      message = "GhostBridge: services.openssh.hostKeys has another key than Ed25519";
    }
  ];

  environment.systemPackages = [
    pkgs.btrfs-progs
    pkgs.ethtool
    pkgs.tcpdump
    pkgs.jq
  ];
  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];
  system.stateVersion = "26.05";
}
