# Our modules over the stand-ins of NixOS' options, with a given lib. What each
# of the tests in integration/nix looks at is an attribute.
{
  lib ? import ./lib.nix,
  tree ? ../ghostbridge,
}:
let
  fake = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
  };
  ghostbridge = fake "ghostbridge" // {
    units = import ../units.nix;
    packaging = ../../packaging;
  };
  pkgs = {
    inherit ghostbridge;
    btrfs-progs = fake "btrfs-progs";
    ethtool = fake "ethtool";
    jq = fake "jq";
    novnc = fake "novnc";
    python3Packages.websockify = fake "websockify";
    qdrant = fake "qdrant";
    tcpdump = fake "tcpdump";
    writeText = builtins.toFile;
  };

  systemOf =
    modules:
    lib.evalModules {
      modules = [
        ./stubs.nix
        { systemd.package = fake "systemd"; }
      ]
      ++ modules;
      specialArgs = {
        inherit pkgs;
        # Of NixOS' own modules one is imported.
        modulesPath = toString ./modules;
      };
    };

  host = systemOf [ (tree + "/configuration.nix") ];
  failed = system: map (a: a.message) (builtins.filter (a: !a.assertion) system.config.assertions);

  text =
    sections:
    builtins.concatStringsSep "" (
      map (
        section:
        "[${section.name}]\n"
        + builtins.concatStringsSep "" (
          builtins.concatMap (
            key: map (v: "${key}=${toString v}\n") (if builtins.isList section.value.${key} then section.value.${key} else [ section.value.${key} ])
          ) (builtins.attrNames section.value)
        )
      ) sections
    );
  textsOf =
    kind: section: units:
    builtins.listToAttrs (
      map (name: {
        name = "${name}.${kind}";
        value = text [
          {
            name = "Unit";
            value = units.${name}.unitConfig // { Description = units.${name}.description; };
          }
          {
            name = section;
            value = units.${name}."${kind}Config";
          }
        ];
      }) (builtins.filter (n: units.${n}.unitConfig != { }) (builtins.attrNames units))
    );

  # Options of ours, by path.
  optionsOf =
    loc: tree:
    if lib.isOption tree then
      [
        {
          path = builtins.concatStringsSep "." loc;
          description = tree.description or "";
          typed = tree ? type;
          hasDefault = tree ? default;
          internal = tree.internal or false;
        }
      ]
    else
      builtins.concatMap (n: optionsOf (loc ++ [ n ]) tree.${n}) (builtins.filter (n: n != "_module") (builtins.attrNames tree));
in
{
  # The README's host as it stands in the tree.
  host = {
    failed = failed host;
    units =
      textsOf "service" "Service" host.config.systemd.services
      // textsOf "socket" "Socket" host.config.systemd.sockets
      // textsOf "timer" "Timer" host.config.systemd.timers
      // textsOf "path" "Path" host.config.systemd.paths;
    wanted = builtins.listToAttrs (
      builtins.concatMap
        (
          kind:
          map (name: {
            name = "${name}.${kind}";
            value = host.config.systemd."${kind}s".${name}.wantedBy;
          }) (builtins.attrNames host.config.systemd."${kind}s")
        )
        [
          "service"
          "socket"
          "timer"
          "path"
        ]
    );
    aliases = builtins.mapAttrs (_: u: u.aliases) host.config.systemd.services;
    tmpfiles = host.config.systemd.tmpfiles.rules;
    users = builtins.attrNames host.config.users.users;
    groups = builtins.attrNames host.config.users.groups;
    etc = builtins.attrNames host.config.environment.etc;
    environment = host.config.environment.etc."default/ghostbridge".text;
    ovs = builtins.fromJSON (builtins.readFile host.config.environment.etc."ghostbridge/ovs.json".source);
    nftables =
      let
        t = host.config.networking.nftables.tables.ghostbridge;
      in
      "table ${t.family} ghostbridge {\n${t.content}}\n";
    fileSystems = host.config.fileSystems;
    prometheus = host.config.services.prometheus;
    grafana = host.config.services.grafana;
    docker = host.config.virtualisation.docker.daemon.settings;
    incus = host.config.virtualisation.incus.preseed;
    lxc = host.config.virtualisation.lxc.defaultConfig;
    # Files of libvirt's networks, by path.
    libvirt = builtins.listToAttrs (
      builtins.concatMap (
        rule:
        let
          m = builtins.match "L\\+ (/var/lib/libvirt/[^ ]+) - - - - (.+)" rule;
        in
        if m == null then
          [ ]
        else
          [
            {
              name = builtins.elemAt m 0;
              value = builtins.readFile (builtins.elemAt m 1);
            }
          ]
      ) host.config.systemd.tmpfiles.rules
    );
    # Where bus policies and polkit's actions are looked for.
    dbusPackages = map (p: p.name) host.config.services.dbus.packages;
    systemPackages = map (p: p.name) host.config.environment.systemPackages;
    novnc = builtins.readFile host.config.environment.etc."ghostbridge/novnc".source;
  };

  # The units that ask the index, where it is in Qdrant.
  inQdrant =
    let
      c =
        (systemOf [
          (tree + "/configuration.nix")
          { services.ghostbridge.storage.qdrant.useAsIndex = true; }
        ]).config;
    in
    {
      environment = c.environment.etc."default/ghostbridge".text;
      units = textsOf "service" "Service" (
        lib.genAttrs [ "gb-vecsync@" "blockchain-search" ] (n: c.systemd.services.${n})
      );
    };

  # What each configuration that breaks something is told.
  broken = builtins.mapAttrs (
    _: c:
    c
    // {
      failed = failed (systemOf [
        (tree + "/configuration.nix")
        c.config
      ]);
      config = null;
    }
  ) (import ./broken.nix { inherit lib; });

  # Values that a type refuses: whether the evaluation fails.
  refused = builtins.mapAttrs (
    _: module:
    let
      s = systemOf [
        (tree + "/configuration.nix")
        module
      ];
    in
    !(builtins.tryEval (builtins.deepSeq s.config.services.ghostbridge true)).success
  ) (import ./refused.nix { inherit lib; });

  # Each module alone, as one would import it, and nothing turned on.
  alone = lib.genAttrs (map (n: "${n}.nix") [
    "ghostbridge"
    "ghostbridge-ovs"
    "blockchain-storage"
    "dbus-orchestrator"
    "virtualization"
    "monitoring"
  ]) (
    name:
    let
      c = (systemOf [ (tree + "/modules/${name}") ]).config;
    in
    {
      units = builtins.attrNames c.systemd.services;
      etc = builtins.attrNames c.environment.etc;
      failed = map (a: a.message) (builtins.filter (a: !a.assertion) c.assertions);
    }
  );

  options = optionsOf [ "services" "ghostbridge" ] host.options.services.ghostbridge;

  # The flakes, without the packages that they make.
  flake =
    let
      outputs = (import ../../flake.nix).outputs {
        self = outputs;
        nixpkgs = {
          lib = lib // {
            nixosSystem = { modules }: systemOf modules;
          };
          outPath = toString ./.;
        };
      };
      ours = (import (tree + "/flake.nix")).outputs {
        self = ours;
        nixpkgs.lib.nixosSystem = { modules }: systemOf modules;
        ghostbridge = outputs;
      };
      enabled = module: {
        failed = failed (systemOf [
          module
          { services.ghostbridge.enable = true; }
        ]);
      };
    in
    {
      outputs = builtins.attrNames outputs;
      systems = builtins.mapAttrs (_: builtins.attrNames) (removeAttrs outputs [ "overlays" ]);
      modules = builtins.mapAttrs (_: m: (enabled m).failed) outputs.nixosModules;
      hosts = builtins.mapAttrs (_: failed) (outputs.nixosConfigurations // { here = ours.nixosConfigurations.ghostbridge; });
    };
}
