# nix/package.nix by a real nixpkgs' buildGoModule, with this machine's Go and
# shell in the place of its stdenv. nixpkgs is a tree of nixpkgs, path this
# machine's PATH.
{ nixpkgs, path }:
let
  lib = import (nixpkgs + "/lib");
  go = {
    CGO_ENABLED = "1";
    GOOS = "linux";
    GOARCH = "amd64";
    version = lib.removePrefix "go" (builtins.getEnv "GB_GO");
  };
  stdenv = rec {
    hostPlatform = "x86_64-linux";
    buildPlatform = hostPlatform;
    mkDerivation =
      f:
      let
        args = if lib.isFunction f then f (args // { finalPackage = drv; }) else f;
        # Nobody here has Nix' own Go and its like: programs are in path.
        attrs = removeAttrs args [
          "disallowedReferences"
          "env"
          "meta"
          "nativeBuildInputs"
          "passthru"
        ];
        drv =
          derivation (
            { name = "${args.pname}-${args.version}"; }
            // attrs
            // (args.env or { })
            // {
              system = hostPlatform;
              builder = "/bin/bash";
              args = [
                "-e"
                ./phases.sh
              ];
              PATH = path;
              hooks = nixpkgs + "/pkgs/by-name/in/installShellFiles/setup-hook.sh";
            }
          )
          // {
            # Only for what overrideModAttrs says, which we do not.
            overrideAttrs = _: drv;
          }
          // (args.passthru or { })
          // (if args ? goModules then { inherit (args) goModules; } else { });
      in
      drv;
  };
  build =
    vendorHash:
    import ../package.nix {
      inherit lib go;
      installShellFiles = null;
      buildGoModule =
        args:
        import (nixpkgs + "/pkgs/build-support/go/module.nix") {
          inherit lib stdenv go;
          cacert = null;
          gitMinimal = null;
        } (args // vendorHash);
    };
in
{
  package = build { };
  # What Nix says of another hash than go mod vendor's.
  wrong = (build { vendorHash = lib.fakeHash; }).goModules;
}
