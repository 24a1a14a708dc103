// Vectors trains the word vectors that pkg/embed has built in, from manual
// pages of Debian packages, and writes them with a manifest of their sources;
// and the synonyms, from WordNet.
//
//	vectors [-cache DIR] [-out FILE] [-synonyms FILE] [-manifest FILE] [-only-synonyms]
//
// It asks apt for the packages in packages.txt, unpacks their manual pages
// without installing anything, and counts which words stand near each other.
// From the same packages it makes the same file, byte for byte, on amd64; the
// manifest names the versions. What is kept of the texts is only which word
// stems they have and a few hundred numbers for each.
package main

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	_ "embed"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
)

//go:embed packages.txt
var packageList string

func main() {
	cache := flag.String("cache", filepath.Join(os.TempDir(), "gb-vectors"), "`DIR` for the packages")
	out := flag.String("out", "pkg/embed/vectors.bin", "`FILE` to write")
	syn := flag.String("synonyms", "pkg/embed/synonyms.bin", "`FILE` to write the synonyms to")
	only := flag.Bool("only-synonyms", false, "make the synonyms alone, for the vectors that are there")
	manifest := flag.String("manifest", "pkg/embed/vectors.manifest", "`FILE` to write the sources to")
	flag.Parse()
	var err error
	if *only {
		err = onlySynonyms(*cache, *out, *syn, *manifest)
	} else {
		err = run(*cache, *out, *syn, *manifest)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
}

// wordnet is the package with WordNet's files.
const wordnet = "wordnet-base"

// makeSynonyms writes the synonyms for the vectors of model and returns the line
// of the manifest for them.
func makeSynonyms(cache, out string, model []byte) (string, error) {
	version, _, err := source(cache, wordnet)
	if err != nil {
		return "", fmt.Errorf("package %s: %w", wordnet, err)
	}
	l, err := embed.ReadLocal(model)
	if err != nil {
		return "", err
	}
	data, pairs, err := synonyms(filepath.Join(cache, wordnet, "usr/share/wordnet"), l)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "vectors: %d pairs of synonyms\n", pairs)
	return fmt.Sprintf("# synonyms.bin, from %s %s: %d bytes sha256 %x\n", wordnet, version, len(data), sha256.Sum256(data)), os.WriteFile(out, data, 0o644)
}

// onlySynonyms replaces the synonyms and the manifest's line of them.
func onlySynonyms(cache, vectors, out, manifest string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	model, err := os.ReadFile(vectors)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	line, err := makeSynonyms(cache, out, model)
	if err != nil {
		return err
	}
	kept, _, _ := strings.Cut(string(old), "# synonyms.bin")
	return os.WriteFile(manifest, []byte(kept+line), 0o644)
}

func run(cache, out, syn, manifest string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	var texts []string
	var sources strings.Builder
	fmt.Fprintln(&sources, "# What vectors.bin was trained on: manual pages of these Debian packages, whose licences (each package's\n"+
		"# copyright file) allow to use, change and pass them on.\n# package version pages sha256-of-text")
	seen := make(map[string]bool) // one page may be in several packages
	for line := range strings.Lines(packageList) {
		name := strings.TrimSpace(line)
		if name == "" || name[0] == '#' {
			continue
		}
		version, pages, err := source(cache, name)
		if err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		sum, n := sha256.New(), 0
		for _, text := range pages {
			if h := sha256.Sum256([]byte(text)); !seen[string(h[:])] {
				seen[string(h[:])] = true
				texts = append(texts, text)
				io.WriteString(sum, text)
				n++
			}
		}
		fmt.Fprintf(&sources, "%s %s %d %s\n", name, version, n, hex.EncodeToString(sum.Sum(nil)))
	}
	size := 0
	for _, t := range texts {
		size += len(t)
	}
	fmt.Fprintf(os.Stderr, "vectors: %d pages, %d bytes of text\n", len(texts), size)
	model, err := train(texts, embed.Thesaurus())
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, model, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(&sources, "# vectors.bin %d bytes sha256 %x\n", len(model), sha256.Sum256(model))
	line, err := makeSynonyms(cache, syn, model)
	if err != nil {
		return err
	}
	sources.WriteString(line)
	return os.WriteFile(manifest, []byte(sources.String()), 0o644)
}

// source returns the manual pages of a package as plain text, in order of
// their paths.
func source(cache, name string) (version string, pages []string, err error) {
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		tmp, err := os.MkdirTemp(cache, ".get-")
		if err != nil {
			return "", nil, err
		}
		defer os.RemoveAll(tmp)
		get := exec.Command("apt-get", "-qq", "download", name)
		get.Dir = tmp
		if out, err := get.CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("apt-get download: %w: %s", err, out)
		}
		debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
		if err != nil || len(debs) != 1 {
			return "", nil, fmt.Errorf("apt-get download left %d packages: %w", len(debs), err)
		}
		tree := filepath.Join(tmp, "tree")
		if out, err := exec.Command("dpkg-deb", "-x", debs[0], tree).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("dpkg-deb: %w: %s", err, out)
		}
		v, err := exec.Command("dpkg-deb", "-f", debs[0], "Version").Output()
		if err != nil {
			return "", nil, err
		}
		if err := os.WriteFile(filepath.Join(tree, "VERSION"), v, 0o644); err != nil {
			return "", nil, err
		}
		if err := os.Rename(tree, dir); err != nil {
			return "", nil, err
		}
	}
	v, err := os.ReadFile(filepath.Join(dir, "VERSION"))
	if err != nil {
		return "", nil, err
	}
	var files []string
	for _, pattern := range []string{"usr/share/man/man[1-8]/*", "usr/lib/systemd/catalog/systemd.catalog"} {
		list, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", nil, err
		}
		files = append(files, list...)
	}
	slices.Sort(files)
	for _, f := range files {
		if info, err := os.Lstat(f); err != nil || !info.Mode().IsRegular() {
			continue
		}
		text, err := readPage(f)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", f, err)
		}
		pages = append(pages, text)
	}
	return strings.TrimSpace(string(v)), pages, nil
}

func readPage(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var r io.Reader = bufio.NewReader(f)
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(r); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(path, ".catalog") {
		return string(data), nil
	}
	return roff(string(data)), nil
}

// roff returns the running text of a manual page: requests that carry text
// keep it, other requests and all escapes are dropped. Paragraphs are separated
// by empty lines.
func roff(page string) string {
	var out strings.Builder
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, `'\"`) || strings.HasPrefix(line, `.\"`) || strings.HasPrefix(line, `'`) {
			continue
		}
		if line[0] == '.' {
			request, args, _ := strings.Cut(line[1:], " ")
			switch strings.TrimSpace(request) {
			case "SH", "SS", "Sh", "Ss":
				out.WriteString("\n\n")
				line = args
			case "TP", "PP", "P", "LP", "IP", "Pp", "It", "HP":
				out.WriteString("\n\n")
				if line = args; request == "TP" || request == "HP" {
					line = ""
				}
			case "B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SM", "SB", "Nm", "Nd", "Ar", "Fl", "Cm", "Pa", "Xr", "Em", "Sy", "Dq", "Ql", "Li", "Va", "Dv", "Ev", "Ic", "Op":
				line = args
			default:
				continue
			}
		}
		out.WriteString(unescape(strings.ReplaceAll(line, `"`, "")))
		out.WriteByte('\n')
	}
	return out.String()
}

func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			out.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'f':
			if i+1 < len(s) {
				i++
				if s[i] == '[' {
					i += max(strings.IndexByte(s[i:], ']'), 0)
				} else if s[i] == '(' {
					i += 2
				}
			}
		case '(':
			i += 2
			out.WriteByte(' ')
		case '*', 'n':
			if i+1 < len(s) {
				if i++; s[i] == '(' {
					i += 2
				} else if s[i] == '[' {
					i += max(strings.IndexByte(s[i:], ']'), 0)
				}
			}
		case 's':
			for i+1 < len(s) && strings.IndexByte("+-0123456789", s[i+1]) >= 0 {
				i++
			}
		case '[':
			i += max(strings.IndexByte(s[i:], ']'), 0)
		case '-':
			out.WriteByte('-')
		case '"':
			return out.String()
		case 'e', '\\':
			out.WriteByte('\\')
		case '&', '|', '^', '/', ',', ':', '%', 'c', '{', '}':
		default:
			out.WriteByte(' ')
		}
	}
	return out.String()
}
