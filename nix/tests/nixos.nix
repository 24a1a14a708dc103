# The README's host on a real NixOS: nixpkgs is a tree of it. What an older one
# than 24.11 lacks is stood in for, so that the rest of it can be looked at.
{ nixpkgs }:
let
  release = builtins.substring 0 5 (builtins.readFile (nixpkgs + "/.version"));
  old = builtins.compareVersions release "24.11" < 0;
  overlay = final: prev: {
    ghostbridge =
      (
        if old then
          final.hello.overrideAttrs (_: {
            name = "ghostbridge";
          })
        else
          final.callPackage ../package.nix { }
      )
      // {
        units = import ../units.nix;
        packaging = ../../packaging;
      };
    qdrant = prev.qdrant or final.hello;
    novnc = prev.novnc or final.hello;
    python3Packages = prev.python3Packages // {
      websockify = prev.python3Packages.websockify or final.hello;
    };
  };
  system =
    modules:
    import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = "x86_64-linux";
      modules = [
        { nixpkgs.overlays = [ overlay ]; }
        ../ghostbridge/configuration.nix
      ]
      ++ (if old then [ ./older.nix ] else [ ])
      ++ modules;
    };
  host = system [ ];
  lib = import (nixpkgs + "/lib");
  failed = s: map (a: a.message) (builtins.filter (a: !a.assertion) s.config.assertions);

  # The flake with this nixpkgs, and what there is to build of it.
  outputs = (import ../../flake.nix).outputs {
    self = outputs;
    nixpkgs = {
      lib = lib // {
        nixosSystem =
          { modules }:
          import (nixpkgs + "/nixos/lib/eval-config.nix") {
            inherit modules;
            system = null;
          };
      };
      outPath = toString nixpkgs;
    };
  };
  builds = set: builtins.mapAttrs (_: d: d.drvPath) set.x86_64-linux;
in
{
  inherit release;
  flake =
    if old then
      null
    else
      {
        packages = builds outputs.packages;
        checks = builds outputs.checks;
        devShells = builds outputs.devShells;
        host.ghostbridge = outputs.nixosConfigurations.ghostbridge.config.system.build.toplevel.drvPath;
        vm.driver = outputs.checks.x86_64-linux.vm.driver.drvPath;
      };
  # What NixOS itself has to say, of an option's new name for one.
  host.warnings = host.config.warnings;
  host.failed = failed host;
  # As NixOS writes them.
  host.units = builtins.mapAttrs (_: u: u.text) (
    lib.filterAttrs (n: u: u.enable && builtins.elem n host.config.services.ghostbridge.units) host.config.systemd.units
  );
  toplevel = host.config.system.build.toplevel.drvPath;
  broken = builtins.mapAttrs (_: c: {
    inherit (c) says;
    failed = failed (system [ c.config ]);
  }) (lib.filterAttrs (_: c: !(old && c.monitoring or false)) (import ./broken.nix { inherit lib; }));
}
