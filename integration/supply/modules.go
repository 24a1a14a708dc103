package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

const ours = "github.com/ghostbridge/ghostbridge"

// A supply is the binaries of a directory and what is in them, both sorted.
type supply struct {
	binaries []binary
	modules  []*module // without our own; Go's library is one, under the name std
}

type binary struct {
	name   string
	size   int64
	sha256 string
	uses   []*module
}

type module struct {
	path, version, sum string // sum as in go.sum
	files              []licenceFile
	licences           []string // SPDX names, sorted; what is not known is "unknown"
}

type licenceFile struct{ name, text string }

// read reads the binaries of our commands in dir.
func read(dir string) (*supply, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := new(supply)
	all := make(map[string]*module)
	where, err := moduleDirs()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := buildinfo.ReadFile(path)
		if err != nil || !strings.HasPrefix(info.Path, ours+"/cmd/") {
			continue // no Go program, or one of the tests
		}
		b, err := readBinary(path)
		if err != nil {
			return nil, err
		}
		deps := append([]*debug.Module{{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}}, info.Deps...)
		for _, d := range deps {
			if d.Replace != nil {
				d = d.Replace
			}
			m := all[d.Path+"@"+d.Version]
			if m == nil {
				m = &module{path: d.Path, version: d.Version, sum: d.Sum}
				if err := m.readLicences(where[d.Path+"@"+d.Version]); err != nil {
					return nil, err
				}
				all[d.Path+"@"+d.Version] = m
				s.modules = append(s.modules, m)
			}
			b.uses = append(b.uses, m)
		}
		s.binaries = append(s.binaries, b)
	}
	if len(s.binaries) == 0 {
		return nil, fmt.Errorf("%s has none of our programs: make build makes them", dir)
	}
	slices.SortFunc(s.modules, func(a, b *module) int { return strings.Compare(a.path+"@"+a.version, b.path+"@"+b.version) })
	return s, nil
}

func readBinary(path string) (binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return binary{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return binary{name: filepath.Base(path), size: n, sha256: hex.EncodeToString(h.Sum(nil))}, err
}

// moduleDirs returns where go has each module's files, by PATH@VERSION. The
// binaries are to be of this tree: what it does not need is not there.
func moduleDirs() (map[string]string, error) {
	where := make(map[string]string)
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	root := strings.TrimSpace(string(out))
	version, err := os.ReadFile(filepath.Join(root, "VERSION"))
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(version), "\n")
	where["std@"+strings.TrimPrefix(first, "go")] = root
	// What a build needs, so that nothing else is asked of the network.
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}@{{.Version}}\t{{.Dir}}{{end}}", ours+"/cmd/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if out, err = cmd.Output(); err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	for line := range strings.Lines(string(out)) {
		if module, dir, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			where[module] = dir
		}
	}
	return where, nil
}

// licenceName are the files that say under which licences a module is; the
// second group is that of files which add to it, for the notices.
var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying)(\.(md|txt|rst))?$|^((licen[cs]e|copying)[-_.].*|notice.*|patents.*)$`)

func (m *module) readLicences(dir string) error {
	if dir == "" {
		return fmt.Errorf("%s@%s is in a binary, and go has no copy of it here: make build, then again", m.path, m.version)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		group := licenceName.FindStringSubmatch(e.Name())
		if group == nil || e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		m.files = append(m.files, licenceFile{e.Name(), string(text)})
		if group[1] != "" {
			m.licences = append(m.licences, classify(string(text))...)
		}
	}
	slices.Sort(m.licences)
	m.licences = slices.Compact(m.licences)
	if len(m.licences) == 0 {
		m.licences = []string{"unknown"}
	}
	return nil
}

// phrases are by what a licence's text is known, in small letters with single
// spaces, and its SPDX name.
var phrases = []struct{ phrase, name string }{
	{"gnu affero general public license", "AGPL"},
	{"gnu lesser general public license", "LGPL"},
	{"gnu library general public license", "LGPL"},
	{"gnu general public license", "GPL"},
	{"mozilla public license", "MPL-2.0"},
	{"eclipse public license", "EPL"},
	{"server side public license", "SSPL"},
	{"business source license", "BUSL"},
	{"apache license version 2.0", "Apache-2.0"},
	{"apache license, version 2.0", "Apache-2.0"},
	{"permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"},
	{"permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"},
	{"permission to use, copy, modify, and distribute this software for any purpose", "ISC"},
}

// classify returns the SPDX names of the licences whose texts are in text.
func classify(text string) []string {
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	var names []string
	for _, p := range phrases {
		if strings.Contains(text, p.phrase) {
			names = append(names, p.name)
		}
	}
	if strings.Contains(text, "redistribution and use in source and binary forms") {
		if strings.Contains(text, "neither the name") || strings.Contains(text, "names of its contributors may") || strings.Contains(text, "may not be used to endorse or promote") {
			names = append(names, "BSD-3-Clause")
		} else {
			names = append(names, "BSD-2-Clause")
		}
	}
	return names
}

// allowed are the licences whose code may be in a program under the Apache
// License 2.0 that is given away as a binary.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// objection says why a module may not be in our programs, "" if it may.
func (m *module) objection() string {
	for _, l := range m.licences {
		if l == "unknown" {
			return "its licence is not known"
		}
		if !slices.Contains(allowed, l) {
			return l + " does not go with ours"
		}
	}
	return ""
}
