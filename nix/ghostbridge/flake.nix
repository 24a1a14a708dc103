# The host's flake, as it stands in /etc/nixos: nixpkgs, GhostBridge, and the
# .nix files beside it.
{
  description = "A GhostBridge host";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    ghostbridge.url = "github:ghostbridge/ghostbridge";
    ghostbridge.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, ghostbridge, ... }:
    {
      nixosConfigurations.ghostbridge = nixpkgs.lib.nixosSystem {
        modules = [
          { nixpkgs.overlays = [ ghostbridge.overlays.default ]; }
          ./configuration.nix
        ];
      };
    };
}
