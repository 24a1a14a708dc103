# The six programs, their man pages and completions, and what a system needs of
# them. The attribute units is nix/units.nix, packaging the directory of files
# that go into /etc: both are read when a system is evaluated, nothing is built
# for that.
{
  lib,
  go,
  buildGoModule,
  # nixpkgs has it beside an older default, or behind a newer one.
  buildGo126Module ? buildGoModule,
  installShellFiles,
}:
let
  root = ../.;
  version = "0-unstable";
  # go.mod asks for it, and buildGoModule lets Go fetch no other.
  build = if lib.versionAtLeast go.version "1.26" then buildGoModule else buildGo126Module;
in
build {
  pname = "ghostbridge";
  inherit version;

  src = lib.fileset.toSource {
    inherit root;
    # Without the tests, which need packages of integration/ and more modules.
    fileset = lib.fileset.difference (lib.fileset.unions [
      ../go.mod
      ../go.sum
      ../cmd
      ../pkg
      ../man
      ../units
      ../packaging
    ]) (lib.fileset.fileFilter (file: lib.hasSuffix "_test.go" file.name) root);
  };

  # What go mod vendor leaves, hashed: go test ./integration/nix -run TestVendorHash -update
  vendorHash = lib.strings.removeSuffix "\n" (builtins.readFile ./vendor-hash);

  subPackages = [
    "cmd/gb-chain"
    "cmd/gb-snap"
    "cmd/gb-vecsync"
    "cmd/gb-ovs-setup"
    "cmd/opdbus"
    "cmd/gb-web"
  ];
  tags = [ "urfave_cli_no_docs" ];
  ldflags = [
    "-s"
    "-w"
    "-X github.com/ghostbridge/ghostbridge/pkg/cli.version=${version}"
  ];
  nativeBuildInputs = [ installShellFiles ];

  # Tests need a btrfs, a bus, a switch: make test, in a clone.
  doCheck = false;

  postInstall = ''
    installManPage man/*.1
    for t in gb-chain gb-snap gb-vecsync gb-ovs-setup opdbus gb-web; do
      installShellCompletion --cmd $t \
        --bash <($out/bin/$t completion bash) \
        --zsh <($out/bin/$t completion zsh) \
        --fish <($out/bin/$t completion fish)
    done
    ln -s opdbus $out/bin/op-dbus
    ln -s opdbus $out/bin/dbus-mcp
    ln -s gb-web $out/bin/dbus-mcp-web
    install -Dm644 -t $out/share/dbus-1/system.d units/dbus-1/system.d/*.conf
    install -Dm644 -t $out/share/dbus-1/system-services units/dbus-1/system-services/*.service
    install -Dm644 -t $out/share/polkit-1/actions units/polkit-1/actions/*.policy
    install -Dm644 -t $out/share/ghostbridge pkg/ovs/ovs.schema.json pkg/hoststate/state.schema.json
  '';

  passthru = {
    units = import ./units.nix;
    packaging = ../packaging;
  };

  meta = {
    description = "Records every change on a host so that nobody can rewrite it, and finds it again";
    license = lib.licenses.asl20;
    platforms = lib.platforms.linux;
    mainProgram = "opdbus";
  };
}
