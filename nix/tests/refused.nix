# Values that the options' types refuse.
{ lib }:
let
  set = value: { services.ghostbridge = value; };
in
{
  unknown-option = set { network.upling = "ens1"; };
  device-name = set { network.uplink = lib.mkForce "a name that is too long"; };
  network = set { network.internalNetwork = "10.0.1.0"; };
  grid = set { storage.snapshots.grid = "each second"; };
  count = set { storage.snapshots.maxCount = 1; };
  free = set { storage.snapshots.minFree = "two gigabytes"; };
  relative-path = set { storage.workDirectory = lib.mkForce "work"; };
  display = set { virtualisation.novnc.displays.vm1 = "not an address"; };
  retention = set { monitoring.retention = "for ever"; };
  setting = set { settings.GB_SNAP_GRID = 1; };
}
