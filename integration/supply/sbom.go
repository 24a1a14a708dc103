package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The parts of CycloneDX 1.6 that are used (cyclonedx.org/docs/1.6/json).
type (
	bom struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version,omitempty"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Licenses   []choice   `json:"licenses,omitempty"`
		PURL       string     `json:"purl,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	choice struct {
		License license `json:"license"`
	}
	license struct {
		ID   string `json:"id,omitempty"`
		Name string `json:"name,omitempty"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// purl is the package URL of a Go module (the type golang of package-url).
func purl(path, version string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return "pkg:golang/" + strings.Join(segments, "/") + "@" + url.PathEscape(version)
}

// sbom writes the bill of materials of a release: the programs, with the hash
// of each, the modules in them, and which of these are in which program.
func (s *supply) sbom(w io.Writer, version, epoch string) error {
	seconds := int64(0)
	if epoch != "" {
		var err error
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
	}
	apache := []choice{{license{ID: "Apache-2.0"}}}
	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{
			Timestamp: time.Unix(seconds, 0).UTC().Format(time.RFC3339),
			Component: component{Type: "application", Ref: "ghostbridge", Name: "ghostbridge", Version: version, Licenses: apache, PURL: purl(ours, version)},
		},
	}
	all := dependency{Ref: "ghostbridge"}
	identity := sha256.New()
	fmt.Fprintln(identity, version)
	for _, program := range s.binaries {
		ref := "program:" + program.name
		b.Components = append(b.Components, component{
			Type: "application", Ref: ref, Name: program.name, Version: version, Licenses: apache, Hashes: []hash{{"SHA-256", program.sha256}},
		})
		all.DependsOn = append(all.DependsOn, ref)
		fmt.Fprintln(identity, program.name, program.sha256)
	}
	b.Dependencies = append(b.Dependencies, all)
	for _, program := range s.binaries {
		d := dependency{Ref: "program:" + program.name}
		for _, m := range program.uses {
			d.DependsOn = append(d.DependsOn, purl(m.path, m.version))
		}
		if program.name == "gb-vecsync" {
			d.DependsOn = append(d.DependsOn, wordnet.Ref)
		}
		b.Dependencies = append(b.Dependencies, d)
	}
	for _, m := range s.modules {
		c := component{Type: "library", Ref: purl(m.path, m.version), Name: m.path, Version: m.version, PURL: purl(m.path, m.version)}
		for _, l := range m.licences {
			if l == "unknown" {
				c.Licenses = append(c.Licenses, choice{license{Name: l}})
			} else {
				c.Licenses = append(c.Licenses, choice{license{ID: l}})
			}
		}
		if m.sum != "" {
			c.Properties = []property{{"go.sum", m.sum}}
		}
		b.Components = append(b.Components, c)
	}
	b.Components = append(b.Components, wordnet)
	// The same contents have the same name: a UUID of version 8 (RFC 9562).
	id := identity.Sum(nil)[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	b.Serial = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(b)
}

// wordnet is what is in gb-vecsync and is no Go module: pkg/embed/synonyms.bin.
var wordnet = component{Type: "data", Ref: "data:wordnet", Name: "WordNet", Version: "3.0", Licenses: []choice{{license{Name: "WordNet 3.0 license"}}}}
