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
  switch = {
    CapabilityBoundingSet = "CAP_NET_ADMIN CAP_SYS_ADMIN CAP_SYS_PTRACE";
    RestrictAddressFamilies = "AF_UNIX AF_NETLINK AF_INET";
    RestrictNamespaces = "net";
    EnvironmentFile = "-/etc/default/ghostbridge";
  };

  # A moment's work that is stopped in the middle has not failed.
  moment = {
    Type = "oneshot";
    SuccessExitStatus = "SIGTERM";
  };

  # For all: flags by their environment twins, which /etc/default/ghostbridge
  # may set anew.
  defaults = {
    Environment = [
      "GB_LOG=${timing}/log"
      "GB_CURSOR=${state}/vecsync/cursor.json"
    ];
    EnvironmentFile = "-/etc/default/ghostbridge";
  };
in
{
  units = {
    "blockchain-log.socket" = {
      comment = "Events are written here; /etc/ghostbridge/writers.json says who may write what.";
      Unit = {
        Description = "GhostBridge: socket of the tamper-evident log";
        Documentation = "man:gb-chain(1)";
      };
      Socket = {
        ListenStream = "${run}/chain.sock";
        SocketGroup = "gb-writers";
        SocketMode = "0660";
      };
      Install.WantedBy = "sockets.target";
    };

    "blockchain-log.service" = {
      comment = "The only writer of the log.";
      Unit = patient // {
        Description = "GhostBridge: the tamper-evident log";
        Documentation = "man:gb-chain(1)";
        Requires = "blockchain-log.socket";
        After = "blockchain-log.socket";
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
      Unit = patient // {
        Description = "GhostBridge: the log's checkpoints to its witnesses";
        Documentation = "man:gb-chain(1)";
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
      Install = {
        WantedBy = "multi-user.target";
        # For packaging/debian/build: the package does not enable it.
        X-GhostBridge-Optional = true;
      };
    };

    "blockchain-journal.service" = {
      comment = "Records the journal.";
      Unit = patient // {
        Description = "GhostBridge: recorder of the journal";
        Documentation = "man:gb-chain(1)";
        Requires = "blockchain-log.socket";
        After = "blockchain-log.socket blockchain-log.service systemd-journald.service";
        Wants = "systemd-journald.service";
      };
      Service = sandbox // always // defaults // {
        Type = "notify";
        User = "gb-journal";
        SupplementaryGroups = "gb-writers ghostbridge systemd-journal";
        ExecStart = "${bin "gb-chain"} append --socket ${run}/chain.sock --format journald --resume -- ${tool "journalctl"} --follow --merge --no-pager --output=json _MACHINE_ID=%m";
        WatchdogSec = "1min";
        # The log's daemon was stopped or restarted: no failure of the recorder.
        SuccessExitStatus = "TEMPFAIL";
        # journalctl --follow passes over earlier boots, unless it merges; it asks
        # for the boot in /proc/sys all the same.
        ProcSubset = "all";
      };
      Install.WantedBy = "multi-user.target";
    };

    "ovs-bridge-setup.service" = {
      comment = "The bridges, before the network. A boot goes on without them.";
      Unit = {
        Description = "GhostBridge: Open vSwitch bridges";
        Documentation = "man:gb-ovs-setup(1)";
        # With the default dependencies it would come after basic.target, and the
        # network before it. Not after openvswitch-switch.service either, which
        # would be an ordering cycle.
        DefaultDependencies = false;
        Wants = "ovsdb-server.service ovs-vswitchd.service";
        After = "ovsdb-server.service ovs-vswitchd.service local-fs.target systemd-tmpfiles-setup.service";
        Before = "network.target systemd-networkd.service network-online.target shutdown.target";
        Conflicts = "shutdown.target";
        ConditionPathExists = [
          "|/etc/ghostbridge/ovs.json"
          "|${state}/ovs/confirmed.json"
        ];
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
      Unit = patient // {
        Description = "GhostBridge: keeper of the Open vSwitch bridges";
        Documentation = "man:gb-ovs-setup(1)";
        # Not without ovs-bridge-setup.service: that one's work is not repeated.
        After = "ovsdb-server.service ovs-vswitchd.service ovs-bridge-setup.service blockchain-log.socket";
        ConditionPathExists = [
          "|/etc/ghostbridge/ovs.json"
          "|${state}/ovs/confirmed.json"
        ];
      };
      Service = sandbox // always // switch // {
        Type = "notify";
        ExecStart = "${bin "gb-ovs-setup"} watch --no-events";
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
      Unit = {
        Description = "GhostBridge: socket for changes of the switch";
        Documentation = "man:gb-ovs-setup(1)";
      };
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
      Unit = {
        Description = "GhostBridge: a change of the switch";
        Documentation = "man:gb-ovs-setup(1)";
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
      Unit = patient // {
        Description = "GhostBridge: recorder of Open vSwitch";
        Documentation = "man:gb-ovs-setup(1)";
        Requires = "blockchain-log.socket";
        After = "blockchain-log.socket blockchain-log.service ovsdb-server.service ovs-vswitchd.service ovs-bridge-setup.service";
        ConditionPathExists = [
          "|/etc/ghostbridge/ovs.json"
          "|${state}/ovs/confirmed.json"
        ];
      };
      # Root without capabilities, since the switch's sockets are root's. Links
      # are read by netlink, offloads by an ioctl on a Unix socket.
      Service = sandbox // always // {
        Type = "notify";
        ExecStart = "${bin "gb-chain"} append --socket ${run}/chain.sock -- ${bin "gb-ovs-setup"} watch --dry-run --every 30s";
        EnvironmentFile = "-/etc/default/ghostbridge";
        # The keeper writes them, who sees more.
        UnsetEnvironment = "GB_OVS_METRICS";
        PrivateNetwork = false;
        RestrictAddressFamilies = "AF_UNIX AF_NETLINK";
        RestartSec = "5s";
        WatchdogSec = "1min";
        SuccessExitStatus = "TEMPFAIL";
        UMask = "0077";
      };
      Install.WantedBy = "multi-user.target";
    };

    "blockchain-dbus.service" = {
      comment = "Records the signals of the system bus.";
      Unit = patient // {
        Description = "GhostBridge: recorder of the system bus";
        Documentation = "man:opdbus(1)";
        Requires = "blockchain-log.socket";
        After = "blockchain-log.socket blockchain-log.service dbus.socket";
        ConditionPathExists = "/run/dbus/system_bus_socket";
      };
      Service = sandbox // always // defaults // {
        Type = "notify";
        User = "gb-dbus";
        SupplementaryGroups = "gb-writers";
        ExecStart = "${bin "gb-chain"} append --socket ${run}/chain.sock -- ${bin "opdbus"} watch --recorder";
        # Senders are told by their units: /proc/PID/cgroup.
        ProtectProc = "default";
        RestartSec = "5s";
        WatchdogSec = "1min";
        # The log's daemon was stopped or restarted: no failure of the recorder.
        SuccessExitStatus = "TEMPFAIL";
      };
      Install.WantedBy = "multi-user.target";
    };

    "dbus-mcp-web.socket" = {
      comment = "The web interface, for browsers on this host, and where gb-web login asks. Both in one: the second line is a Unix socket.";
      Unit = {
        Description = "GhostBridge: sockets of the web interface";
        Documentation = "man:gb-web(1)";
      };
      Socket = {
        ListenStream = [
          "127.0.0.1:8096"
          "${run}/web.sock"
        ];
        SocketGroup = "ghostbridge";
        SocketMode = "0660";
      };
      Install.WantedBy = "sockets.target";
    };

    "dbus-mcp-web.service" = {
      comment = "Reads the log and asks others; it may write nothing but its sessions, and has no network but the sockets that it was given.";
      Unit = patient // {
        Description = "GhostBridge: the web interface";
        Documentation = "man:gb-web(1)";
        Requires = "dbus-mcp-web.socket";
        After = "dbus-mcp-web.socket";
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
      Unit = {
        Description = "GhostBridge: socket of the MCP server";
        Documentation = "man:opdbus(1)";
      };
      Socket = {
        ListenStream = "${run}/mcp.sock";
        SocketGroup = "ghostbridge";
        SocketMode = "0660";
      };
      Install.WantedBy = "sockets.target";
    };

    "dbus-mcp-server.service" = {
      comment = "Has no rights at all: it asks opdbus serve, which alone takes its word for which agent it is.";
      Unit = patient // {
        Description = "GhostBridge: the MCP server, for AI agents";
        Documentation = "man:opdbus(1)";
        Requires = "dbus-mcp-server.socket";
        After = "dbus-mcp-server.socket op-dbus.service dbus.socket";
        Wants = "op-dbus.service";
        ConditionPathExists = "/run/dbus/system_bus_socket";
      };
      Service = sandbox // always // {
        Type = "notify";
        User = "gb-mcp";
        ExecStart = "${bin "opdbus"} mcp --bus system";
        # Where a client that can open addresses sends its user for an approval.
        Environment = "GB_WEB_URL=http://127.0.0.1:8096";
        EnvironmentFile = "-/etc/default/ghostbridge";
        IPAddressAllow = "localhost";
        WatchdogSec = "1min";
      };
    };

    "op-dbus.service" = {
      # A user of its own would have to be allowed manage-units by polkit, to start
      # a unit, which is as good as root (a transient one runs anything); and each
      # service would ask polkit about it, a second time.
      comment = "Root without capabilities: what it may do is what services let root do.";
      Unit = patient // {
        Description = "GhostBridge: the choke point before changes through D-Bus";
        Documentation = "man:opdbus(1)";
        Wants = "blockchain-log.socket ovs-switch.socket";
        After = "blockchain-log.socket dbus.socket ovs-switch.socket";
        ConditionPathExists = "/run/dbus/system_bus_socket";
      };
      Service = sandbox // always // {
        Type = "notify";
        BusName = "org.freedesktop.opdbus";
        ExecStart = "${bin "opdbus"} serve --bus system";
        EnvironmentFile = "-/etc/default/ghostbridge";
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
      Unit = {
        Description = "GhostBridge: a new epoch key every hour";
        Documentation = "man:gb-chain(1)";
      };
      Timer = {
        OnCalendar = "hourly";
        AccuracySec = "1min";
      };
      Install.WantedBy = "timers.target";
    };

    "blockchain-rotate.service" = {
      comment = "The daemon makes the new key and destroys the old one; this asks it to.";
      Unit = {
        Description = "GhostBridge: new epoch key of the log";
        Documentation = "man:gb-chain(1)";
        Requires = "blockchain-log.socket";
        After = "blockchain-log.socket";
      };
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
      Unit = {
        Description = "GhostBridge: snapshots of the log, each second";
        Documentation = "man:gb-snap(1)";
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
      Unit = patient // {
        Description = "GhostBridge: a snapshot of the log";
        Documentation = "man:gb-snap(1)";
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
      Unit = {
        Description = "GhostBridge: snapshots that the index has not seen";
        Documentation = "man:gb-snap(1)";
      };
      Path.DirectoryNotEmpty = "${run}/pending";
      Install.WantedBy = "paths.target";
    };

    "btrfs-vector-sync.service" = {
      comment = "Sends the newest snapshot against the one that the index stands at.";
      Unit = patient // {
        Description = "GhostBridge: the log's snapshots to the index";
        Documentation = "man:gb-snap(1)";
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
      comment = "Send streams come in here, one at a time, from root alone.";
      Unit = {
        Description = "GhostBridge: socket of the index's ingester";
        Documentation = "man:gb-vecsync(1)";
      };
      Socket = {
        ListenStream = "${run}/vecsync.sock";
        SocketMode = "0600";
        Accept = true;
        MaxConnections = 1;
      };
      Install.WantedBy = "sockets.target";
    };

    "gb-vecsync@.service" = {
      comment = "Reads a stream that came from a privileged sender; has no privileges.";
      Unit = {
        Description = "GhostBridge: ingester of the index";
        Documentation = "man:gb-vecsync(1)";
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
      Service = sandbox // always // {
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
        IPAddressAllow = "localhost";
        PrivateNetwork = false;
        RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
        LimitNOFILE = 65536;
        # It counts processors and memory.
        ProcSubset = "all";
      };
      Install = {
        WantedBy = "multi-user.target";
        X-GhostBridge-Optional = true;
      };
    };

    "novnc.service" = {
      comment = "Screens of virtual machines in a browser: /etc/ghostbridge/novnc says which. Off unless somebody turns it on.";
      Unit = patient // {
        Description = "GhostBridge: noVNC";
        Documentation = "https://github.com/novnc/websockify";
        After = "network.target";
        ConditionFileIsExecutable = tool "websockify";
      };
      Service = sandbox // always // {
        Type = "exec";
        User = "gb-novnc";
        ExecStart = "${tool "websockify"} --web=${share "novnc"} --token-plugin=TokenFile --token-source=/etc/ghostbridge/novnc --heartbeat=30 127.0.0.1:6080";
        IPAddressAllow = "localhost";
        PrivateNetwork = false;
        RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
      };
      Install = {
        WantedBy = "multi-user.target";
        X-GhostBridge-Optional = true;
      };
    };

    "blockchain-search.socket" = {
      comment = "Questions to the index; for the group ghostbridge.";
      Unit = {
        Description = "GhostBridge: socket of the search";
        Documentation = "man:gb-vecsync(1)";
      };
      Socket = {
        ListenStream = "${run}/search.sock";
        SocketGroup = "ghostbridge";
        SocketMode = "0660";
      };
      Install.WantedBy = "sockets.target";
    };

    "blockchain-search.service" = {
      comment = "The only reader of the index; ends when nobody has asked for a while.";
      Unit = patient // {
        Description = "GhostBridge: search in the index";
        Documentation = "man:gb-vecsync(1)";
        Requires = "blockchain-search.socket";
        After = "blockchain-search.socket";
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
