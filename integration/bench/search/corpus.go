package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

//go:embed testdata
var testdata embed.FS

// now is when the questions are asked; the corpus is of the days before.
var now = time.Date(2026, 3, 10, 15, 0, 0, 0, time.UTC)

const days = 9

var hosts = []string{"hv1", "hv2", "hv3"}

// A kind is a line of templates.txt.
type kind struct {
	id, source, typ  string
	severity         event.Severity
	subject, message string
	data             map[string]string
}

// A corpus is events, and for each the name of its kind, or of its plant.
type corpus struct {
	events []*event.Event
	label  []string
	plants map[string]string // plant to kind
}

func rows(name string, fields int) ([][]string, error) {
	text, err := testdata.ReadFile("testdata/" + name)
	if err != nil {
		return nil, err
	}
	var list [][]string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		row := strings.Split(line, "|")
		if len(row) > fields {
			return nil, fmt.Errorf("%s: %q has more than %d fields", name, line, fields)
		}
		for len(row) < fields {
			row = append(row, "")
		}
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		list = append(list, row)
	}
	return list, nil
}

func loadKinds() ([]kind, error) {
	list, err := rows("templates.txt", 7)
	if err != nil {
		return nil, err
	}
	var kinds []kind
	for _, r := range list {
		k := kind{id: r[0], source: r[1], typ: r[2], subject: r[4], message: r[5]}
		if k.severity, err = event.ParseSeverity(r[3]); err != nil {
			return nil, fmt.Errorf("template %s: %w", r[0], err)
		}
		if r[6] != "" {
			k.data = make(map[string]string)
			for f := range strings.SplitSeq(r[6], ";") {
				key, value, _ := strings.Cut(f, "=")
				k.data[key] = value
			}
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

// values fill the slots of templates. Those of plants are of their own and
// come out of none of these.
type values struct{ *rand.Rand }

func pick(r *rand.Rand, list string) string {
	f := strings.Fields(list)
	return f[r.IntN(len(f))]
}

func (v values) slot(name string) string {
	r := v.Rand
	switch name {
	case "ip":
		return fmt.Sprintf("10.%d.%d.%d", r.IntN(4), r.IntN(8), 1+r.IntN(250))
	case "ip6":
		return fmt.Sprintf("fd00:%x::%x", r.IntN(200), 1+r.IntN(4000))
	case "mac":
		return fmt.Sprintf("52:54:00:%02x:%02x:%02x", r.IntN(100), r.IntN(250), r.IntN(250))
	case "n":
		return fmt.Sprint(100 + r.IntN(9000))
	case "small":
		return fmt.Sprint(1 + r.IntN(9))
	case "pid":
		return fmt.Sprint(300 + r.IntN(30000))
	case "hex":
		return fmt.Sprintf("%012x", r.Uint64()>>16)
	case "uuid":
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.Uint32()&0xffff, r.Uint32()&0xfff, r.Uint32()&0xfff, r.Uint64()>>16)
	case "path":
		return "/" + pick(r, "etc var/lib srv/data opt/app home/ops usr/lib") + "/" + pick(r, "config cache images report state archive") + fmt.Sprint(r.IntN(40)) + pick(r, ".conf .db .img .txt .json")
	case "user":
		return pick(r, "root alice bob carol deploy backup www-data postgres ops git")
	case "vm":
		return pick(r, "web db mail ci build proxy") + "-" + fmt.Sprintf("%02d", 1+r.IntN(12))
	case "if":
		return pick(r, "eth enp3s0f vnet bond tap eno") + fmt.Sprint(r.IntN(16))
	case "disk":
		return "sd" + pick(r, "a b c d e f g h")
	case "pci":
		return fmt.Sprintf("0000:%02x:00.%d", r.IntN(0x60), r.IntN(4))
	case "port":
		return fmt.Sprint(32768 + r.IntN(28000))
	case "ms":
		return fmt.Sprint(10 + r.IntN(5000))
	case "host":
		return pick(r, "hv1 hv2 hv3 hv4 nas1 gw1")
	case "pkg":
		return pick(r, "openssl nginx bash curl systemd linux-image-amd64 openvswitch-switch qemu-system-x86 libc6 sudo")
	case "unit":
		return pick(r, "nginx.service postgresql.service docker.service restic-backup.service cron.service ssh.service redis-server.service chrony.service libvirtd.service grafana.service")
	}
	panic("no slot " + name)
}

func (v values) fill(text string, given map[string]string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		value, ok := given[name]
		if !ok {
			value = v.slot(name)
		}
		b.WriteString(value)
		text = after
	}
}

func (v values) event(k *kind, host string, at time.Time, given map[string]string) *event.Event {
	all := make(map[string]string) // an event's subject and message name the same
	for _, name := range []string{"unit", "if", "small", "user", "vm"} {
		all[name] = v.slot(name)
	}
	for n, value := range given {
		all[n] = value
	}
	e := &event.Event{Time: at, At: at, Host: host, Source: k.source, Type: k.typ, Severity: k.severity, Subject: v.fill(k.subject, all), Message: v.fill(k.message, all)}
	if k.data != nil {
		data := make(map[string]string, len(k.data))
		for key, text := range k.data {
			data[key] = v.fill(text, all)
		}
		e.Data, _ = json.Marshal(data)
	}
	return e
}

// build makes about n events: of each kind some a day on each host, and the
// rest as it is in logs, of a few kinds most.
func build(n int) (*corpus, error) {
	kinds, err := loadKinds()
	if err != nil {
		return nil, err
	}
	v := values{rand.New(rand.NewPCG(7, 2026))}
	c := &corpus{plants: make(map[string]string)}
	type labelled struct {
		*event.Event
		label string
	}
	var list []labelled
	start := now.AddDate(0, 0, -days).Truncate(24 * time.Hour)
	length := now.Sub(start)
	add := func(k *kind, host string, at time.Time) {
		list = append(list, labelled{v.event(k, host, at, nil), k.id})
	}
	for i := range kinds {
		for _, host := range hosts {
			for at := start; at.Before(now); at = at.Add(8 * time.Hour) {
				if t := at.Add(time.Duration(v.Int64N(int64(8 * time.Hour)))); t.Before(now) {
					add(&kinds[i], host, t)
				}
			}
		}
	}
	order := v.Perm(len(kinds))
	for len(list) < n {
		r := int(math.Exp(v.Float64()*math.Log(float64(len(kinds))))) - 1
		add(&kinds[order[r]], hosts[v.IntN(len(hosts))], start.Add(time.Duration(v.Int64N(int64(length)))))
	}
	plants, err := rows("plants.txt", 3)
	if err != nil {
		return nil, err
	}
	for _, p := range plants {
		at := slices.IndexFunc(kinds, func(k kind) bool { return k.id == p[1] })
		if at < 0 {
			return nil, fmt.Errorf("plant %s: no template %s", p[0], p[1])
		}
		given := make(map[string]string)
		for _, f := range strings.Fields(p[2]) {
			key, value, _ := strings.Cut(f, "=")
			given[key] = value
		}
		e := v.event(&kinds[at], hosts[v.IntN(len(hosts))], start.Add(time.Duration(v.Int64N(int64(length)))), given)
		list = append(list, labelled{e, "@" + p[0]})
		c.plants["@"+p[0]] = p[1]
	}
	slices.SortStableFunc(list, func(a, b labelled) int { return a.Time.Compare(b.Time) })
	for i, e := range list {
		e.Index = int64(i)
		c.events, c.label = append(c.events, e.Event), append(c.label, e.label)
	}
	return c, nil
}
