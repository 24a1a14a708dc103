# A NixOS in a virtual machine: an event is written, and found.
{ modules }:
{
  name = "ghostbridge";

  nodes.host =
    { pkgs, ... }:
    {
      imports = modules;
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
                "x-systemd.requires=subvolumes.service"
                "x-systemd.after=subvolumes.service"
              ];
            };
          })
          [
            "blockchain-timing"
            "blockchain-vectors"
          ]
      );
      systemd.services.subvolumes = {
        unitConfig.DefaultDependencies = false;
        requires = [ "dev-vdb.device" ];
        after = [ "dev-vdb.device" ];
        path = [
          pkgs.btrfs-progs
          pkgs.util-linux
        ];
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = ''
          mkfs.btrfs -q -f /dev/vdb
          mkdir -p /run/vdb
          mount /dev/vdb /run/vdb
          btrfs subvolume create /run/vdb/@blockchain-timing
          btrfs subvolume create /run/vdb/@blockchain-vectors
          umount /run/vdb
        '';
      };
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
