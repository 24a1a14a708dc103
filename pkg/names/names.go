// Package names holds every name that several parts of GhostBridge, its units
// and its Nix modules must spell alike: paths, sockets, ports, units, the bus
// name. It imports nothing and computes nothing.
package names

// D-Bus.
const (
	BusName      = "org.freedesktop.opdbus"
	BusObject    = "/org/freedesktop/opdbus"
	BusInterface = "org.freedesktop.opdbus" // prefix of every interface
)

// Data. The three subvolumes are mounted at these directories; none lies
// inside another.
const (
	TimingSubvolume = "@blockchain-timing"
	TimingDir       = "/var/lib/blockchain-timing"
	LogDir          = TimingDir + "/log"

	SnapshotsSubvolume = "@blockchain-snapshots"
	SnapshotsDir       = "/var/lib/blockchain-snapshots"

	VectorsSubvolume = "@blockchain-vectors"
	VectorsDir       = "/var/lib/blockchain-vectors"
	IndexFile        = VectorsDir + "/index.db"
	QdrantStateFile  = VectorsDir + "/qdrant-state.db" // of an index in Qdrant

	StateDir     = "/var/lib/ghostbridge"
	KeysDir      = StateDir + "/keys"
	WitnessDir   = StateDir + "/witness"
	SpoolDir     = StateDir + "/spool"
	CursorFile   = StateDir + "/vecsync/cursor.json" // in a directory of the ingester's own
	OVSStateDir  = StateDir + "/ovs"
	ApprovalsDir = StateDir + "/approvals"
	ApproversDir = StateDir + "/approvers" // security keys of those who approve in gb-web
	HostStateDir = StateDir + "/state"
	TokensFile   = StateDir + "/tokens.json" // of AI agents, hashed
)

// Runtime sockets.
const (
	RunDir        = "/run/ghostbridge"
	ChainSocket   = RunDir + "/chain.sock"
	VecsyncSocket = RunDir + "/vecsync.sock"
	SearchSocket  = RunDir + "/search.sock"
	SwitchSocket  = RunDir + "/switch.sock" // root's: changes of the switch
	MCPSocket     = RunDir + "/mcp.sock"
	WebSocket     = RunDir + "/web.sock" // where gb-web login asks

	WebSessionsDir = "/run/ghostbridge-web" // gb-web's own
)

// MCPUser is the user of dbus-mcp-server.service, who alone may speak for
// agents with tokens.
const MCPUser = "gb-mcp"

// The user that gb-web runs as, and the groups whose members may log in to it.
const (
	WebUser        = "gb-web"
	ReadersGroup   = "ghostbridge"
	OperatorsGroup = "gb-operators"
	ApproversGroup = "gb-approvers"
)

// Configuration.
const (
	ConfigDir   = "/etc/ghostbridge"
	WritersFile = ConfigDir + "/writers.json" // which uid may write which source
	OVSConfig   = ConfigDir + "/ovs.json"
	PolicyFile  = ConfigDir + "/policy.json" // what opdbus lets whom change
)

// QdrantAlias is the collection alias that every reader uses.
const QdrantAlias = "blockchain_events"

// Ports, all on loopback unless told otherwise.
const (
	WebPort        = 8096
	NoVNCPort      = 6080
	QdrantHTTPPort = 6333
	QdrantGRPCPort = 6334
	PrometheusPort = 9090
	GrafanaPort    = 3000
)

// Bridges.
const (
	UplinkBridge    = "ovsbr0"
	UplinkInterface = "ens1"
	InternalBridge  = "ovsbr1"
	InternalNet     = "10.0.1.0/24"
	InternalGateway = "10.0.1.1"
)

// The six tools.
const (
	GBChain    = "gb-chain"
	GBSnap     = "gb-snap"
	GBVecsync  = "gb-vecsync"
	GBOVSSetup = "gb-ovs-setup"
	OPDBus     = "opdbus"
	GBWeb      = "gb-web"
)

// Units lists every unit file that the product ships.
var Units = []string{
	"ovs-bridge-setup.service", "ovs-bridge-watch.service",
	"btrfs-snapshot.timer", "btrfs-snapshot.service",
	"btrfs-vector-sync.path", "btrfs-vector-sync.service",
	"gb-vecsync.socket", "gb-vecsync@.service",
	"blockchain-log.socket", "blockchain-log.service", "blockchain-witness.service",
	"blockchain-journal.service", "blockchain-dbus.service", "blockchain-ovs.service",
	"blockchain-search.socket", "blockchain-search.service",
	"ovs-switch.socket", "ovs-switch@.service",
	"blockchain-rotate.timer", "blockchain-rotate.service",
	"openvswitch.service",
	"op-dbus.service",
	"dbus-mcp-server.socket", "dbus-mcp-server.service",
	"dbus-mcp-web.socket", "dbus-mcp-web.service",
	"qdrant.service", "novnc.service",
}
