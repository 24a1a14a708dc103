# The short way to the README's steps 1 to 3, with disko
# (github.com/nix-community/disko). It erases the disk that it is told:
#
#   disko --mode destroy,format,mount --arg device '"/dev/nvme1n1"' ./disko.nix
{ device, ... }:
let
  options = [
    "compress=zstd:3"
    "noatime"
    "space_cache=v2"
    "ssd"
  ];
  at = mountpoint: {
    inherit mountpoint;
    mountOptions = options;
  };
in
{
  disko.devices.disk.main = {
    type = "disk";
    inherit device;
    content = {
      type = "gpt";
      partitions = {
        ESP = {
          size = "512M";
          type = "EF00";
          content = {
            type = "filesystem";
            format = "vfat";
            extraArgs = [
              "-n"
              "BOOT"
            ];
            mountpoint = "/boot";
            mountOptions = [ "umask=0077" ];
          };
        };
        root = {
          size = "100%";
          content = {
            type = "btrfs";
            extraArgs = [
              "-L"
              "nixos"
            ];
            subvolumes = {
              "@" = at "/";
              "@home" = at "/home";
              "@overlay" = at "/overlay";
              "@blockchain-timing" = at "/var/lib/blockchain-timing";
              "@blockchain-vectors" = at "/var/lib/blockchain-vectors";
              "@work" = at "/work";
            };
          };
        };
      };
    };
  };
}
