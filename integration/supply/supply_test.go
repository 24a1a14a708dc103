package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

func TestMain(m *testing.M) { tools.Main(m) }

func ourSupply(t *testing.T) *supply {
	t.Helper()
	s, err := read(tools.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every module of every program is under a licence that goes with ours.
func TestLicences(t *testing.T) {
	s := ourSupply(t)
	if len(s.binaries) != 6 || len(s.modules) < 20 {
		t.Fatalf("%d binaries, %d modules", len(s.binaries), len(s.modules))
	}
	var out bytes.Buffer
	if err := s.licences(&out); err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", out.Bytes())
	var notices bytes.Buffer
	if err := s.notices(&notices); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.modules {
		if !strings.Contains(notices.String(), "\n"+m.path+" "+m.version+": ") {
			t.Errorf("%s is not in the notices", m.path)
		}
	}
}

// What must not come in is found, and so is what nobody knows.
func TestLicencesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007":    "GPL does not go with ours",
		"under the terms of the GNU Affero General\nPublic License": "AGPL does not go with ours",
		"Mozilla Public License Version 2.0":                        "MPL-2.0 does not go with ours",
		"All rights reserved. Ask us.":                              "its licence is not known",
		"":                                                          "its licence is not known",
		"Apache License\n  Version 2.0, January 2004":               "",
		"Permission is hereby granted, free of charge, to any person obtaining a copy\nGNU General Public License": "GPL does not go with ours",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "LICENSE.md"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		m := module{path: "example.org/m", version: "v1.0.0"}
		if err := m.readLicences(dir); err != nil {
			t.Fatal(err)
		}
		if got := m.objection(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if err := (&supply{modules: []*module{&m}}).licences(new(bytes.Buffer)); (err != nil) != (want != "") {
			t.Errorf("%q: %v", text, err)
		}
	}
	m := module{path: "example.org/m", version: "v1.0.0"}
	if err := m.readLicences(""); err == nil {
		t.Error("a module that is not there has a licence")
	}
	if err := m.readLicences(t.TempDir()); err != nil || m.objection() == "" {
		t.Errorf("a module without a licence: %v, %q", err, m.objection())
	}
}

// schema returns CycloneDX' own, with those that it refers to. They are as the
// npm package @cyclonedx/cyclonedx-library 10.3.0 has them.
func schema(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	load := func(u *url.URL) (*jsonschema.Schema, error) {
		data, err := os.ReadFile(filepath.Join("testdata", path.Base(u.Path)))
		if err != nil {
			return nil, err
		}
		s := new(jsonschema.Schema)
		return s, json.Unmarshal(data, s)
	}
	root, err := load(&url.URL{Path: "bom-1.6.SNAPSHOT.schema.json"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := root.Resolve(&jsonschema.ResolveOptions{BaseURI: "http://cyclonedx.org/schema/", Loader: load})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The bill of materials is valid, is the same each time, names every module of
// every program, and refers to nothing that is not in it.
func TestSBOM(t *testing.T) {
	s := ourSupply(t)
	var first, second bytes.Buffer
	if err := s.sbom(&first, "v1.2.3", "1700000000"); err != nil {
		t.Fatal(err)
	}
	if err := ourSupply(t).sbom(&second, "v1.2.3", "1700000000"); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("not the same twice: %v", err)
	}
	if err := s.sbom(new(bytes.Buffer), "v1.2.3", "yesterday"); err == nil {
		t.Error("a bad SOURCE_DATE_EPOCH is taken")
	}
	valid := schema(t)
	var any any
	if err := json.Unmarshal(first.Bytes(), &any); err != nil {
		t.Fatal(err)
	}
	if err := valid.Validate(any); err != nil {
		t.Errorf("not a CycloneDX 1.6 document: %v", err)
	}
	// The schema is one that can say no, also in what it refers to.
	for _, c := range [][2]string{{`"bomFormat": "CycloneDX"`, `"bomFormat": "Other"`}, {`"id": "Apache-2.0"`, `"id": "Apache-2"`}, {`"type": "library"`, `"kind": "library"`}, {`"alg": "SHA-256"`, `"alg": "SHA-257"`}} {
		bad := strings.Replace(first.String(), c[0], c[1], 1)
		if err := json.Unmarshal([]byte(bad), &any); err != nil || bad == first.String() {
			t.Fatal(c, err)
		}
		if valid.Validate(any) == nil {
			t.Errorf("%s is valid", c[1])
		}
	}
	var b bom
	if err := json.Unmarshal(first.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	refs := []string{b.Metadata.Component.Ref}
	for _, c := range b.Components {
		if slices.Contains(refs, c.Ref) {
			t.Errorf("%s is there twice", c.Ref)
		}
		refs = append(refs, c.Ref)
	}
	for _, m := range s.modules {
		if !slices.Contains(refs, purl(m.path, m.version)) {
			t.Errorf("%s is not in it", m.path)
		}
	}
	for _, d := range b.Dependencies {
		for _, ref := range append(d.DependsOn, d.Ref) {
			if !slices.Contains(refs, ref) {
				t.Errorf("%s refers to %s, which is not in it", d.Ref, ref)
			}
		}
	}
	if b.Metadata.Timestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("its time is %s", b.Metadata.Timestamp)
	}
}

// The programs stay below their ceilings.
func TestSizes(t *testing.T) {
	if os.Getenv("GB_BIN") == "" {
		require.Skip(t, "needs the binaries of make build: GB_BIN=bin")
	}
	s := ourSupply(t)
	var out bytes.Buffer
	if err := s.sizes(&out); err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", out.Bytes())
	s.binaries[0].size = 1 << 30
	if err := s.sizes(new(bytes.Buffer)); err == nil {
		t.Error("a gigabyte is below the ceiling")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"sbom"}, {"sbom", tools.Dir(t)}, {"what", tools.Dir(t)}, {"licences", t.TempDir()}, {"licences", "/nonexistent"}} {
		if err := run(new(bytes.Buffer), args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// The Debian package has the completions, the manual pages, the licences and
// the bill of materials where Debian looks for them, and the bill is of the
// very programs in it.
func TestDebianPackage(t *testing.T) {
	dpkg := require.Tool(t, "dpkg-deb")
	out, root := t.TempDir(), t.TempDir()
	cmd := exec.Command(require.Tool(t, "make"), "deb", "BIN="+tools.Dir(t), "VERSION=v1.2.3", "DIST="+out)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "DEB_COMPRESSION=none", "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb: %v\n%s", err, text)
	}
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	if text, err := exec.Command(dpkg, "--extract", debs[0], root).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, text)
	}
	data, err := os.ReadFile(filepath.Join(root, "usr/share/doc/ghostbridge/sbom.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	if b.Metadata.Component.Version != "v1.2.3" || b.Metadata.Timestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("the bill is of %s at %s", b.Metadata.Component.Version, b.Metadata.Timestamp)
	}
	hashes := make(map[string]string)
	for _, c := range b.Components {
		for _, h := range c.Hashes {
			hashes[c.Name] = h.Content
		}
	}
	for name := range ceilings {
		program, err := readBinary(filepath.Join(root, "usr/bin", name))
		if err != nil || hashes[name] != program.sha256 {
			t.Errorf("%s: %v; the bill has %s, not %s", name, err, hashes[name], program.sha256)
		}
		for _, path := range []string{
			"bash-completion/completions/" + name, "zsh/vendor-completions/_" + name, "fish/vendor_completions.d/" + name + ".fish", "man/man1/" + name + ".1.gz",
		} {
			if info, err := os.Stat(filepath.Join(root, "usr/share", path)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
		}
	}
	f, err := os.Open(filepath.Join(root, "usr/share/doc/ghostbridge/third-party-licences.txt.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(text, []byte("\ngoogle.golang.org/grpc ")) {
		t.Errorf("%d bytes of licences, %v", len(text), err)
	}
}
