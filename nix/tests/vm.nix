# A NixOS in a virtual machine: an event is written, and found.
{ module }:
{
  name = "ghostbridge";

  nodes.host =
    { pkgs, ... }:
    {
      imports = [ module ];
      # A disk for the subvolumes, which are made before they are mounted.
      virtualisation.emptyDiskImages = [ 1024 ];
      virtualisation.fileSystems = builtins.listToAttrs (
        map
          (name: {
            name = "/var/lib/${name}";
            value = {
              device = "/dev/vdb";
              fsType = "btrfs";
              options = [
                "subvol=@${name}"
                "compress=zstd:3"
              ];
            };
          })
          [
            "blockchain-timing"
            "blockchain-vectors"
          ]
      );
      boot.initrd.postDeviceCommands = ''
        ${pkgs.btrfs-progs}/bin/mkfs.btrfs -q /dev/vdb
        mkdir -p /mnt-vdb && mount -t btrfs /dev/vdb /mnt-vdb
        ${pkgs.btrfs-progs}/bin/btrfs subvolume create /mnt-vdb/@blockchain-timing
        ${pkgs.btrfs-progs}/bin/btrfs subvolume create /mnt-vdb/@blockchain-vectors
        umount /mnt-vdb
      '';
      services.ghostbridge = {
        enable = true;
        storage.enable = true;
        dbus.enable = true;
        dbus.web.enable = true;
      };
    };

  testScript = ''
    host.wait_for_unit("multi-user.target")
    host.wait_for_unit("blockchain-log.service")
    host.succeed("""echo '{"source":"demo","type":"note","message":"hello from the test"}' | gb-chain append --socket /run/ghostbridge/chain.sock -""")
    host.wait_until_succeeds("gb-vecsync search --json 'hello from the test' | grep -q 'hello from the test'", timeout=30)
    host.succeed("gb-chain verify")
    host.succeed("busctl introspect org.freedesktop.opdbus /org/freedesktop/opdbus")
    host.wait_until_succeeds("curl -fs http://127.0.0.1:8096/healthz")
  '';
}
