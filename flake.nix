{
  description = "GhostBridge records every change on a Linux host, human or AI, so that nobody can rewrite it";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # For each system, what f makes of its packages, ours among them.
      each =
        f:
        lib.genAttrs systems (
          system:
          f (
            import nixpkgs {
              inherit system;
              overlays = [ self.overlays.default ];
            }
          )
        );
      # By name, each can be imported alone.
      modules = lib.genAttrs [
        "ghostbridge-ovs"
        "blockchain-storage"
        "dbus-orchestrator"
        "virtualization"
        "monitoring"
      ] (name: ./nix/ghostbridge/modules + "/${name}.nix");
      # A module, and the package that it needs.
      with-package = module: {
        imports = [ module ];
        nixpkgs.overlays = [ self.overlays.default ];
      };
    in
    {
      overlays.default = final: _: { ghostbridge = final.callPackage ./nix/package.nix { }; };

      packages = each (pkgs: {
        default = pkgs.ghostbridge;
        inherit (pkgs) ghostbridge;
      });

      nixosModules = builtins.mapAttrs (_: with-package) modules // {
        default = with-package { imports = builtins.attrValues modules; };
      };

      # The README's host.
      nixosConfigurations.ghostbridge = lib.nixosSystem {
        modules = [
          { nixpkgs.overlays = [ self.overlays.default ]; }
          ./nix/ghostbridge/configuration.nix
        ];
      };

      checks = each (
        pkgs:
        {
          package = pkgs.ghostbridge;
          # units/ is what nix/units.nix says.
          units = pkgs.runCommand "ghostbridge-units" { } ''
            cmp ${pkgs.writeText "rendered" (builtins.toJSON (import ./nix/render.nix { }))} \
                ${pkgs.writeText "committed" (builtins.toJSON (
                  builtins.mapAttrs (path: _: builtins.readFile (./units + "/${path}")) (import ./nix/render.nix { })
                ))}
            touch $out
          '';
        }
        // lib.optionalAttrs (pkgs.stdenv.hostPlatform.system == "x86_64-linux") {
          # Its hosts have pkgs, with our package in it, and may not add overlays.
          vm = pkgs.testers.runNixOSTest (import ./nix/tests/vm.nix { modules = builtins.attrValues modules; });
        }
      );

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.go
            pkgs.gnumake
            pkgs.btrfs-progs
            pkgs.openvswitch
            pkgs.statix
            pkgs.deadnix
          ];
        };
      });

      formatter = each (pkgs: pkgs.nixfmt-tree);
    };
}
