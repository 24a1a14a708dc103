# A template: nixos-generate-config --root /mnt --show-hardware-config says what
# this machine needs besides (boot.initrd.availableKernelModules). The file
# systems are the README's, by their labels.
{ lib, modulesPath, ... }:
let
  # For one btrfs the options of the first mount hold, so all are the same. What
  # differs by subvolume is said by properties: modules/blockchain-storage.nix.
  subvolume = name: {
    device = "/dev/disk/by-label/nixos";
    fsType = "btrfs";
    options = [
      "subvol=${name}"
      "compress=zstd:3"
      "noatime"
      "space_cache=v2"
      "ssd"
    ];
  };
in
{
  imports = [ (modulesPath + "/installer/scan/not-detected.nix") ];

  boot.initrd.availableKernelModules = [
    "nvme"
    "xhci_pci"
    "ahci"
    "usbhid"
    "sd_mod"
    "virtio_pci"
    "virtio_blk"
  ];

  fileSystems = {
    "/" = subvolume "@";
    "/home" = subvolume "@home";
    "/overlay" = subvolume "@overlay";
    "/work" = subvolume "@work";
    "/var/lib/blockchain-timing" = subvolume "@blockchain-timing";
    "/var/lib/blockchain-vectors" = subvolume "@blockchain-vectors";
    # @blockchain-snapshots is made, and mounted, by the first snapshot.
    "/boot" = {
      device = "/dev/disk/by-label/BOOT";
      fsType = "vfat";
      options = [ "umask=0077" ];
    };
  };
  swapDevices = [ ];

  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  hardware.enableRedistributableFirmware = lib.mkDefault true;
  hardware.cpu.amd.updateMicrocode = lib.mkDefault true;
  hardware.cpu.intel.updateMicrocode = lib.mkDefault true;
}
