package hoststate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// A Document is a desired state. The tags of its types are the format's one
// source: Parse enforces them and Schema makes the JSON Schema of them. What a
// document does not name is left alone.
type Document struct {
	SchemaRef string  `json:"$schema,omitempty" doc:"the JSON Schema of this file, for editors"`
	Version   int     `json:"version" doc:"of the format: 1" min:"1" max:"1" required:"true"`
	Plugins   Plugins `json:"plugins" doc:"what should be, by plugin" required:"true"`
}

// Plugins are the parts of a document.
type Plugins struct {
	Hostname  *Hostname   `json:"hostname,omitempty" doc:"the host's names (hostnamed)"`
	Systemd   *Systemd    `json:"systemd,omitempty" doc:"units of the service manager"`
	OVS       *ovs.Config `json:"ovs,omitempty" doc:"Open vSwitch, as gb-ovs-setup has it; flows that it does not name stay"`
	OpenFlow  *OpenFlow   `json:"openflow,omitempty" doc:"flows of bridges"`
	Snapshots *Snapshots  `json:"snapshots,omitempty" doc:"which snapshots of the log are kept"`
	Timedate  *Timedate   `json:"timedate,omitempty" doc:"time zone and clock; compared, not changed"`
	Resolved  *Resolved   `json:"resolved,omitempty" doc:"name resolution; compared, not changed"`
	Login     *Login      `json:"login,omitempty" doc:"sessions and power keys; compared, not changed"`
	Packages  *Packages   `json:"packages,omitempty" doc:"what is installed; compared, not changed"`
}

// MaxDocument is how long a document may be, in bytes.
const MaxDocument = ovs.MaxConfig

// A DocumentError says what is wrong where in a document: exit code 2.
type DocumentError struct {
	Path   string // such as plugins.systemd.units.nginx.service.active
	Reason string
	Advice string
}

func (e *DocumentError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

// ExitCode is that of wrong configuration.
func (e *DocumentError) ExitCode() int { return 2 }

// Hint is the advice.
func (e *DocumentError) Hint() string { return e.Advice }

// DBusName is the error's name on the bus.
func (e *DocumentError) DBusName() string { return "org.freedesktop.DBus.Error.InvalidArgs" }

func wrong(path, format string, args ...any) *DocumentError {
	return &DocumentError{Path: path, Reason: fmt.Sprintf(format, args...)}
}

// under puts the path of a part before what is wrong in it.
func under(path string, err error) error {
	var c *ovs.ConfigError
	if errors.As(err, &c) {
		if c.Path != "" {
			path = strings.TrimPrefix(path+"."+c.Path, ".")
		}
		return &DocumentError{path, c.Reason, c.Advice}
	}
	return err
}

// Parse reads and checks a document. Unknown and duplicate keys are errors.
// Every error is a *DocumentError.
func Parse(data []byte) (*Document, error) {
	d := new(Document)
	if err := ovs.Decode(data, d); err != nil {
		return nil, under("", err)
	}
	for _, check := range []func(*Plugins) error{checkHostname, checkOVS, checkSystemd, checkSnapshots, checkPackages} {
		if err := check(&d.Plugins); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Bytes returns the document as JSON without spaces, two that mean the same
// alike.
func (d *Document) Bytes() json.RawMessage {
	c := *d
	c.SchemaRef = ""
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings, numbers and maps of them
	}
	return b
}

// Hash is the SHA-256 of Bytes, in hex.
func (d *Document) Hash() string { return hashOf(d.Bytes()) }

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// SchemaID names the JSON Schema of a document.
const SchemaID = "https://github.com/ghostbridge/ghostbridge/state.schema.json"

// Schema returns the JSON Schema (draft 2020-12) of a document.
func Schema() []byte {
	s := ovs.SchemaOf(reflect.TypeFor[Document]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = SchemaID
	s["title"] = "GhostBridge: desired state of a host"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic(err) // maps and strings
	}
	return b.Bytes()
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what goes in is ours and marshals
	}
	return b
}
