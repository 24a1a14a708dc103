# The one source of the units, and of the users and directories that they need.
# Builtins only, and systemd's own spelling: render.nix writes units/ from it,
# and NixOS modules map it onto systemd.services and its siblings. After a
# change: make units.
#
# bin names a program of ours, tool one of others', share a directory of data.
{
  bin ? n: "/usr/bin/${n}",
  tool ? n: "/usr/bin/${n}",
  share ? n: "/usr/share/${n}",
}:
let
  timing = "/var/lib/blockchain-timing";
  snapshots = "/var/lib/blockchain-snapshots";
  vectors = "/var/lib/blockchain-vectors";
  state = "/var/lib/ghostbridge";
  run = "/run/ghostbridge";

  # Flags by their environment twins, which may be set anew there.
  settings.EnvironmentFile = "-/etc/default/ghostbridge";

  about = man: what: {
    Description = "GhostBridge: ${what}";
    Documentation = "man:${man}(1)";
  };

  # A service that is given its socket.
  behind = socket: {
    Requires = socket;
    After = socket;
  };

  # For who may read the log.
  readers = {
    SocketGroup = "ghostbridge";
    SocketMode = "0660";
  };

  # For packaging/debian/build: the package does not enable it.
  optional = {
    WantedBy = "multi-user.target";
    X-GhostBridge-Optional = true;
  };

  # What every service has. Settings that need a mount namespace are apart,
  # because setting one up takes longer than a tick of the snapshot timer's
  # service should.
  base = {
    AmbientCapabilities = "";
    CapabilityBoundingSet = "";
    KeyringMode = "private";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NoNewPrivileges = true;
    ProtectHostname = true;
    RemoveIPC = true;
    RestrictAddressFamilies = "AF_UNIX";
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    SystemCallFilter = [
      "@system-service"
      "~@privileged @resources"
    ];
    UMask = "0027";
  };

  sandbox = base // {
    DevicePolicy = "closed";
    IPAddressDeny = "any";
    PrivateDevices = true;
    PrivateIPC = true;
    PrivateNetwork = true;
    PrivateTmp = true;
    ProcSubset = "pid";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
  };

  # A daemon that is killed or fails comes back, however often.
  always = {
    Restart = "always";
    RestartSec = "1s";
  };
  patient.StartLimitIntervalSec = 0;

  # Deleting a snapshot and sending one need CAP_SYS_ADMIN, taking one of
  # another user's subvolume CAP_FOWNER, reading it CAP_DAC_READ_SEARCH.
  btrfs = {
    CapabilityBoundingSet = "CAP_SYS_ADMIN CAP_FOWNER CAP_DAC_READ_SEARCH";
    # Holds are for all to read who may enter the snapshots' directory.
    UMask = "0022";
  };

  # The switch's sockets are root's. Links, addresses and routes go by netlink,
  # offloads by an ioctl on an Internet socket; those of a guest's end of a veth
  # are set in the guest's namespace.
  switch = settings // {
    CapabilityBoundingSet = "CAP_NET_ADMIN CAP_SYS_ADMIN CAP_SYS_PTRACE";
    RestrictAddressFamilies = "AF_UNIX AF_NETLINK AF_INET";
    RestrictNamespaces = "net";
  };

  # Without bridges of ours there is nothing to look after.
  configured.ConditionPathExists = [
    "|/etc/ghostbridge/ovs.json"
    "|${state}/ovs/confirmed.json"
  ];

  # A network that ends at this host.
  loopback = {
    IPAddressAllow = "localhost";
    PrivateNetwork = false;
    RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
  };

  # What a recorder says it writes to gb-chain append, which brings it to the log.
  # That the log's daemon was stopped or restarted is no failure of the recorder.
  recorder = {
    Type = "notify";
    WatchdogSec = "1min";
    SuccessExitStatus = "TEMPFAIL";
  };
  append = "${bin "gb-chain"} append --socket ${run}/chain.sock";
  afterLog = others: {
    Requires = "blockchain-log.socket";
    After = "blockchain-log.socket blockchain-log.service ${others}";
  };

  # A moment's work that is stopped in the middle has not failed.
  moment = {
    Type = "oneshot";
    SuccessExitStatus = "SIGTERM";
  };

  # For all who ask for the log or the index.
  defaults = settings // {
    Environment = [
      "GB_LOG=${timing}/log"
      "GB_CURSOR=${state}/vecsync/cursor.json"
    ];
  };
in
{
  units = {
    "blockchain-log.socket" = {
      comment = "Events are written here; /etc/ghostbridge/writers.json says who may write what.";
      Unit = about "gb-chain" "socket of the tamper-evident log";
      Socket = {
        ListenStream = "${run}/chain.sock";
        SocketGroup = "gb-writers";
        SocketMode = "0660";
      };
      Install.WantedBy = "sockets.target";
    };

    "blockchain-log.service" = {
      comment = "The only writer of the log.";
      Unit = patient // about "gb-chain" "the tamper-evident log" // behind "blockchain-log.socket" // {
        RequiresMountsFor = "${timing} ${state}";
      };
      Service = sandbox // always // defaults // {
        Type = "notify";
        User = "gb-log";
        ExecStartPre = "${bin "gb-chain"} init --recovery-file ${run}/recovery/key";
        # It has no network; checkpoints are offered by blockchain-witness.service.
        ExecStart = "${bin "gb-chain"} serve --witnesses=";
        WatchdogSec = "1min";
        TimeoutStartSec = "10min";
        # The writer's unit is read from /proc/PID/cgroup and recorded.
        ProtectProc = "default";
        ReadWritePaths = "${timing} ${run}/recovery";
        StateDirectory = "ghostbridge/keys";
        StateDirectoryMode = "0700";
      };
      Install = {
        WantedBy = "multi-user.target";
        Also = "blockchain-log.socket";
      };
    };

    "blockchain-witness.service" = {
      comment = "Offers checkpoints to the witnesses on other hosts. Off unless somebody turns it on.";
      Unit = patient // about "gb-chain" "the log's checkpoints to its witnesses" // {
        Wants = "network-online.target";
        After = "network-online.target blockchain-log.service";
        RequiresMountsFor = "${timing} ${state}";
      };
      Service = sandbox // always // defaults // {
        Type = "exec";
        User = "gb-witness";
        SupplementaryGroups = "ghostbridge";
        ExecStart = "${bin "gb-chain"} witness offer --follow";
        IPAddressDeny = "";
        PrivateNetwork = false;
        RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
        RestartSec = "10s";
        # Who adds a witness, prunes, or asks where one stands reads it.
        StateDirectory = "ghostbridge/witness";
        StateDirectoryMode = "0755";
        UMask = "0022";
      };
      Install = optional;
    };

    "blockchain-journal.service" = {
      comment = "Records the journal.";
      Unit = patient // about "gb-chain" "recorder of the journal" // afterLog "systemd-journald.service" // {
        Wants = "systemd-journald.service";
      };
      Service = sandbox // always // recorder // defaults // {
        User = "gb-journal";
        SupplementaryGroups = "gb-writers ghostbridge systemd-journal";
        ExecStart = "${append} --format journald --resume -- ${tool "journalctl"} --follow --merge --no-pager --output=json _MACHINE_ID=%m";
        # journalctl --follow passes over earlier boots, unless it merges; it asks
        # for the boot in /proc/sys all the same.
        ProcSubset = "all";
      };
      Install.WantedBy = "multi-user.target";
    };

    "ovs-bridge-setup.service" = {
      comment = "The bridges, before the network. A boot goes on without them.";
      Unit = about "gb-ovs-setup" "Open vSwitch bridges" // configured // {
        # With the default dependencies it would come after basic.target, and the
        # network before it. Not after openvswitch-switch.service either, which
        # would be an ordering cycle.
        DefaultDependencies = false;
        Wants = "ovsdb-server.service ovs-vswitchd.service";
        After = "ovsdb-server.service ovs-vswitchd.service local-fs.target systemd-tmpfiles-setup.service";
        Before = "network.target systemd-networkd.service network-online.target shutdown.target";
        Conflicts = "shutdown.target";
      };
      Service = base // switch // {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${bin "gb-ovs-setup"} apply --boot";
        TimeoutStartSec = "1min";
      };
      Install.WantedBy = "multi-user.target";
    };

    "ovs-bridge-watch.service" = {
      comment = "Puts the switch's flows and offloads back, and takes back what nobody confirmed.";
      Unit = patient // about "gb-ovs-setup" "keeper of the Open vSwitch bridges" // configured // {
        # Not without ovs-bridge-setup.service: that one's work is not repeated.
        After = "ovsdb-server.service ovs-vswitchd.service ovs-bridge-setup.service blockchain-log.socket";
      };
      Service = sandbox // always // switch // {
        Type = "notify";
        ExecStart = "${bin "gb-ovs-setup"} watch --no-events --every 10s";
        PrivateNetwork = false;
        # Guests' namespaces are in /proc/PID/ns, networkd's files in /run.
        ProtectProc = "default";
        ProtectSystem = "full";
        # Taking a change back may take a while.
        WatchdogSec = "3min";
        UMask = "0077";
      };
      Install.WantedBy = "multi-user.target";
    };

    "ovs-switch.socket" = {
      comment = "op-dbus.service, which has no rights over the network, has the switch changed here; root's alone.";
      Unit = about "gb-ovs-setup" "socket for changes of the switch";
      Socket = {
        ListenStream = "${run}/switch.sock";
        SocketMode = "0600";
        Accept = true;
        MaxConnections = 8;
      };
      Install.WantedBy = "sockets.target";
    };

    "ovs-switch@.service" = {
      comment = "One look at the switch, or one change of it, for op-dbus.service.";
      Unit = about "gb-ovs-setup" "a change of the switch" // {
        CollectMode = "inactive-or-failed";
      };
      Service = base // switch // {
        Type = "simple";
        ExecStart = "${bin "gb-ovs-setup"} answer";
        StandardInput = "socket";
        StandardOutput = "socket";
        StandardError = "journal";
        # What is rolled back, and awaits its confirmation, is in ${state}.
        UMask = "0077";
      };
    };

    "blockchain-ovs.service" = {
      comment = "Records what becomes of the switch. What is to be put back is ovs-bridge-watch.service's.";
      Unit =
        patient
        // about "gb-ovs-setup" "recorder of Open vSwitch"
        // configured
        // afterLog "ovsdb-server.service ovs-vswitchd.service ovs-bridge-setup.service";
      # Root without capabilities, since the switch's sockets are root's. Links
      # are read by netlink, offloads by an ioctl on a Unix socket.
      Service = sandbox // always // recorder // settings // {
        ExecStart = "${append} -- ${bin "gb-ovs-setup"} watch --dry-run --every 30s";
        # The keeper writes them, who sees more.
        UnsetEnvironment = "GB_OVS_METRICS";
        PrivateNetwork = false;
        RestrictAddressFamilies = "AF_UNIX AF_NETLINK";
        RestartSec = "5s";
        UMask = "0077";
      };
      Install.WantedBy = "multi-user.target";
    };

    "blockchain-dbus.service" = {
      comment = "Records the signals of the system bus.";
      Unit = patient // about "opdbus" "recorder of the system bus" // afterLog "dbus.socket" // {
        ConditionPathExists = "/run/dbus/system_bus_socket";
      };
      Service = sandbox // always // recorder // defaults // {
        User = "gb-dbus";
        SupplementaryGroups = "gb-writers";
        ExecStart = "${append} -- ${bin "opdbus"} watch --recorder";
        # Senders are told by their units: /proc/PID/cgroup.
        ProtectProc = "default";
        RestartSec = "5s";
      };
      Install.WantedBy = "multi-user.target";
    };

    "dbus-mcp-web.socket" = {
      comment = "The web interface, for browsers on this host, and where gb-web login asks. Both in one: the second line is a Unix socket.";
      Unit = about "gb-web" "sockets of the web interface";
      Socket = readers // {
        ListenStream = [
          "127.0.0.1:8096"
          "${run}/web.sock"
        ];
      };
      Install.WantedBy = "sockets.target";
    };

    "dbus-mcp-web.service" = {
      comment = "Reads the log and asks others; it may write nothing but its sessions, and has no network but the sockets that it was given.";
      Unit = patient // about "gb-web" "the web interface" // behind "dbus-mcp-web.socket" // {
        RequiresMountsFor = timing;
      };
      Service = sandbox // always // defaults // {
        Type = "notify";
        User = "gb-web";
        SupplementaryGroups = "ghostbridge";
        ExecStart = "${bin "gb-web"} serve";
        # People who are logged in stay so when it is restarted; a boot ends all.
        RuntimeDirectory = "ghostbridge-web";
        RuntimeDirectoryMode = "0700";
        RuntimeDirectoryPreserve = true;
        # Who is on the bus is told by units: /proc/PID/cgroup. How long the host is up: /proc/uptime.
        ProcSubset = "all";
        ProtectProc = "default";
        IPAddressAllow = "localhost";
        RestartSec = "1s";
        WatchdogSec = "1min";
      };
    };

    "dbus-mcp-server.socket" = {
      comment = "AI agents come in here, each with a token; opdbus mcp --server carries what they say. A drop-in with ListenStream=127.0.0.1:8097 opens loopback, too.";
      Unit = about "opdbus" "socket of the MCP server";
      Socket = readers // { ListenStream = "${run}/mcp.sock"; };
      Install.WantedBy = "sockets.target";
    };

    "dbus-mcp-server.service" = {
      comment = "Has no rights at all: it asks opdbus serve, which alone takes its word for which agent it is.";
      Unit = patient // about "opdbus" "the MCP server, for AI agents" // {
        Requires = "dbus-mcp-server.socket";
        After = "dbus-mcp-server.socket op-dbus.service dbus.socket";
        Wants = "op-dbus.service";
        ConditionPathExists = "/run/dbus/system_bus_socket";
      };
      Service = sandbox // always // settings // {
        Type = "notify";
        User = "gb-mcp";
        ExecStart = "${bin "opdbus"} mcp --bus system";
        # Where a client that can open addresses sends its user for an approval.
        Environment = "GB_WEB_URL=http://127.0.0.1:8096";
        IPAddressAllow = "localhost";
        WatchdogSec = "1min";
      };
    };

    "op-dbus.service" = {
      # A user of its own would have to be allowed manage-units by polkit, to start
      # a unit, which is as good as root (a transient one runs anything); and each
      # service would ask polkit about it, a second time.
      comment = "Root without capabilities: what it may do is what services let root do.";
      Unit = patient // about "opdbus" "the choke point before changes through D-Bus" // {
        Wants = "blockchain-log.socket ovs-switch.socket";
        After = "blockchain-log.socket dbus.socket ovs-switch.socket";
        ConditionPathExists = "/run/dbus/system_bus_socket";
      };
      Service = sandbox // always // settings // {
        Type = "notify";
        BusName = "org.freedesktop.opdbus";
        ExecStart = "${bin "opdbus"} serve --bus system";
        # To read the log and the search, and to write to the log's daemon.
        SupplementaryGroups = "gb-writers ghostbridge";
        StateDirectory = "ghostbridge";
        StateDirectoryMode = "0755";
        # Callers are told apart by their units, and intents by their process:
        # /proc/PID/cgroup, /proc/sys/kernel/random/boot_id.
        ProcSubset = "all";
        ProtectProc = "default";
        WatchdogSec = "30s";
      };
      Install = {
        WantedBy = "multi-user.target";
        Alias = "dbus-org.freedesktop.opdbus.service";
      };
    };

    "blockchain-rotate.timer" = {
      Unit = about "gb-chain" "a new epoch key every hour";
      Timer = {
        OnCalendar = "hourly";
        AccuracySec = "1min";
      };
      Install.WantedBy = "timers.target";
    };

    "blockchain-rotate.service" = {
      comment = "The daemon makes the new key and destroys the old one; this asks it to.";
      Unit = about "gb-chain" "new epoch key of the log" // behind "blockchain-log.socket";
      Service = sandbox // defaults // moment // {
        User = "gb-log";
        SupplementaryGroups = "gb-writers";
        ExecStart = "${bin "gb-chain"} rotate-key --socket ${run}/chain.sock";
        Restart = "on-failure";
        RestartSec = "10s";
        TimeoutStartSec = "5min";
      };
    };

    "btrfs-snapshot.timer" = {
      comment = "Each second. A tick in which nothing has changed takes no snapshot.";
      Unit = about "gb-snap" "snapshots of the log, each second" // {
        ConditionPathIsMountPoint = timing;
      };
      Timer = {
        OnCalendar = "*-*-* *:*:*";
        AccuracySec = "10ms";
      };
      Install.WantedBy = "timers.target";
    };

    "btrfs-snapshot.service" = {
      comment = "PID 1's lines about a unit that starts each second are not wanted in the journal.";
      Unit = patient // about "gb-snap" "a snapshot of the log" // {
        RequiresMountsFor = "${timing} ${snapshots}";
      };
      Service = base // btrfs // defaults // moment // {
        # Who may read the log may look at its snapshots: the directory is the group's.
        SupplementaryGroups = "ghostbridge";
        # The first tick mounts ${snapshots}.
        SystemCallFilter = base.SystemCallFilter ++ [ "@mount fchownat" ];
        ExecStart = "${bin "gb-snap"} take --subvolume @blockchain-snapshots --pending ${run}/pending ${timing}";
        LogLevelMax = "notice";
        StandardOutput = "null";
        # Else it is where standard output is.
        StandardError = "journal";
        # What opdbus apply has set wins.
        EnvironmentFile = [
          "-/etc/default/ghostbridge"
          "-${state}/state/snapshots.env"
        ];
        TimeoutStartSec = "1min";
      };
    };

    "btrfs-vector-sync.path" = {
      comment = "Level-triggered: gb-snap take leaves a mark for what the index has not seen, gb-snap send removes it.";
      Unit = about "gb-snap" "snapshots that the index has not seen";
      Path.DirectoryNotEmpty = "${run}/pending";
      Install.WantedBy = "paths.target";
    };

    "btrfs-vector-sync.service" = {
      comment = "Sends the newest snapshot against the one that the index stands at.";
      Unit = patient // about "gb-snap" "the log's snapshots to the index" // {
        # Not Wants=: who stops the socket stops the ingester.
        After = "gb-vecsync.socket";
        RequiresMountsFor = "${timing} ${snapshots}";
      };
      Service = base // btrfs // defaults // moment // {
        ExecStart = "${bin "gb-snap"} send --resync --pending ${run}/pending --to unix:${run}/vecsync.sock ${timing}";
        LogLevelMax = "notice";
        # 75: the index did not take it this time.
        Restart = "on-failure";
        RestartSec = "3s";
        TimeoutStartSec = "1h";
      };
    };

    "gb-vecsync.socket" = {
      comment = "Send streams come in here, from root alone. The index's lock lets one in at a time; a limit of one here would be for good if systemd ever miscounted, which was seen once.";
      Unit = about "gb-vecsync" "socket of the index's ingester";
      Socket = {
        ListenStream = "${run}/vecsync.sock";
        SocketMode = "0600";
        Accept = true;
        MaxConnections = 16;
      };
      Install.WantedBy = "sockets.target";
    };

    "gb-vecsync@.service" = {
      comment = "Reads a stream that came from a privileged sender; has no privileges.";
      Unit = about "gb-vecsync" "ingester of the index" // {
        RequiresMountsFor = vectors;
        CollectMode = "inactive-or-failed";
      };
      Service = sandbox // defaults // {
        User = "gb-index";
        ExecStart = "${bin "gb-vecsync"} ingest";
        StandardInput = "socket";
        StandardOutput = "journal";
        StandardError = "journal";
        LogLevelMax = "notice";
        NotifyAccess = "main";
        WatchdogSec = "10min";
        ReadWritePaths = vectors;
        StateDirectory = "ghostbridge/vecsync";
        StateDirectoryMode = "0755";
        # The cursor is for gb-snap and gb-web to read; the index's own directory is closed.
        UMask = "0022";
      };
    };

    "qdrant.service" = {
      comment = "The index in Qdrant, instead of the one that is built in. Off unless somebody turns it on.";
      Unit = patient // {
        Description = "GhostBridge: Qdrant";
        Documentation = "https://qdrant.tech/documentation/";
        RequiresMountsFor = vectors;
        ConditionFileIsExecutable = tool "qdrant";
      };
      Service = sandbox // always // loopback // {
        Type = "exec";
        User = "qdrant";
        # The API key comes in a configuration file of its own: service: {api_key: ...}.
        LoadCredential = "qdrant.yaml:/etc/ghostbridge/qdrant.yaml";
        ExecStart = "${tool "qdrant"} --disable-telemetry --config-path %d/qdrant.yaml";
        Environment = [
          "QDRANT__SERVICE__HOST=127.0.0.1"
          "QDRANT__SERVICE__HTTP_PORT=6333"
          "QDRANT__SERVICE__GRPC_PORT=6334"
          "QDRANT__SERVICE__STATIC_CONTENT_DIR=${share "qdrant/static"}"
          "QDRANT__STORAGE__STORAGE_PATH=${vectors}/qdrant/storage"
          "QDRANT__STORAGE__SNAPSHOTS_PATH=${vectors}/qdrant/snapshots"
          "QDRANT__TELEMETRY_DISABLED=true"
        ];
        EnvironmentFile = "-/etc/default/ghostbridge-qdrant";
        WorkingDirectory = "${vectors}/qdrant";
        ReadWritePaths = "${vectors}/qdrant";
        LimitNOFILE = 65536;
        # It counts processors and memory.
        ProcSubset = "all";
      };
      Install = optional;
    };

    "novnc.service" = {
      comment = "Screens of virtual machines in a browser: /etc/ghostbridge/novnc says which. Off unless somebody turns it on.";
      Unit = patient // {
        Description = "GhostBridge: noVNC";
        Documentation = "https://github.com/novnc/websockify";
        After = "network.target";
        ConditionFileIsExecutable = tool "websockify";
      };
      Service = sandbox // always // loopback // {
        Type = "exec";
        User = "gb-novnc";
        ExecStart = "${tool "websockify"} --web=${share "novnc"} --token-plugin=TokenFile --token-source=/etc/ghostbridge/novnc --heartbeat=30 127.0.0.1:6080";
      };
      Install = optional;
    };

    "blockchain-search.socket" = {
      comment = "Questions to the index; for the group ghostbridge.";
      Unit = about "gb-vecsync" "socket of the search";
      Socket = readers // { ListenStream = "${run}/search.sock"; };
      Install.WantedBy = "sockets.target";
    };

    "blockchain-search.service" = {
      comment = "The only reader of the index; ends when nobody has asked for a while.";
      Unit = patient // about "gb-vecsync" "search in the index" // behind "blockchain-search.socket" // {
        RequiresMountsFor = vectors;
      };
      Service = sandbox // defaults // {
        Type = "notify";
        User = "gb-search";
        ExecStart = "${bin "gb-vecsync"} search --listen --idle-exit 1m";
        Restart = "on-failure";
        RestartSec = "1s";
        LogLevelMax = "notice";
        WatchdogSec = "1min";
      };
    };
  };

  # What stands beside units to have them do otherwise. Where it says choice, it
  # is installed where systemd does not look, for somebody to put there.
  dropins.boot = {
    comment = "The network comes after the bridges, those after the switch: one that hangs would hold it up for the five minutes that Debian allows.";
    units = [
      "ovsdb-server.service"
      "ovs-vswitchd.service"
    ];
    Service.TimeoutStartSec = "1min";
  };
  dropins.qdrant = {
    choice = true;
    comment = "The index in Qdrant, with the API key alone in a file of root's. Another machine's needs GB_INDEX=qdrants://HOST in /etc/default/ghostbridge, and IPAddressAllow= with its address here.";
    units = [
      "gb-vecsync@.service"
      "blockchain-search.service"
    ];
    Unit.After = "qdrant.service";
    Service = loopback // {
      Environment = "GB_INDEX=qdrant://127.0.0.1:6334";
      LoadCredential = "qdrant-key:/etc/ghostbridge/qdrant-key";
    };
  };

  # Names that are another unit's: the README's openvswitch.service is whatever
  # runs the switch.
  aliases."openvswitch.service" = "ovs-vswitchd.service";

  # sysusers.d(5). Groups first: members are added to them.
  sysusers = [
    "# May read the log and ask the index."
    "g ghostbridge - -"
    "# May log in to gb-web as operator, who asks for changes, and as approver."
    "g gb-operators - -"
    "g gb-approvers - -"
    "# May connect to the log's socket."
    "g gb-writers - -"
    ''u gb-log - "GhostBridge log" ${timing} -''
    ''u gb-witness - "GhostBridge offers to witnesses" - -''
    ''u gb-journal - "GhostBridge recorder of the journal" - -''
    ''u gb-index - "GhostBridge index" ${vectors} -''
    ''u gb-search - "GhostBridge search" - -''
    ''u gb-web - "GhostBridge web interface" - -''
    ''u gb-mcp - "GhostBridge MCP server" - -''
    ''u gb-dbus - "GhostBridge recorder of the system bus" - -''
    ''u gb-novnc - "GhostBridge screens of virtual machines" - -''
    ''u qdrant - "Qdrant" ${vectors}/qdrant -''
  ];

  # tmpfiles.d(5). Files that a daemon makes belong to the group of readers,
  # by the directory's setgid bit. Nothing here is ever cleaned up. Where the
  # file system isn't btrfs, the attribute can't be set, which is no failure (-).
  tmpfiles = [
    "d ${timing} 2750 gb-log ghostbridge -"
    "d ${snapshots} 0750 root ghostbridge -"
    "# What is made there is compressed, however the file system was mounted."
    "t- ${timing} - - - - btrfs.compression=zstd"
    "t- ${vectors} - - - - btrfs.compression=zstd"
    "d ${vectors} 2751 gb-index gb-search -"
    "# Of two who write there one is Qdrant, in a directory of its own."
    "d ${vectors}/qdrant 0700 qdrant qdrant -"
    "d ${state} 0755 root root -"
    "# For the node exporter's textfile collector."
    "d ${state}/metrics 0755 root root -"
    "d ${run} 0755 root root -"
    "d ${run}/pending 0755 root root -"
    "# The recovery key of a new log, until somebody fetches it; gone at the next boot."
    "d ${run}/recovery 0700 gb-log gb-log -"
  ];
}
