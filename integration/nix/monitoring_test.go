//go:build linux

package nix

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

func TestMain(m *testing.M) { tools.Main(m) }

func tool(t *testing.T) string { return tools.Dir(t) }

const monitoring = "packaging/monitoring"

// Each alert fires when it should: promtool reads the rules as Prometheus does.
func TestAlerts(t *testing.T) {
	promtool := require.Tool(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "ghostbridge.rules.yml"}, {"test", "rules", "ghostbridge.rules_test.yml"},
		{"check", "config", "--syntax-only", "prometheus.yml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(root, monitoring)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	rules, err := os.ReadFile(filepath.Join(root, monitoring, "ghostbridge.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(filepath.Join(root, monitoring, "ghostbridge.rules_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		if !strings.Contains(string(tests), "alertname: "+m[1]+",") {
			t.Errorf("%s is not tested", m[1])
		}
	}
}

var metricName = regexp.MustCompile(`ghostbridge_[a-z_]+`)

// Rules and dashboards ask for numbers that somebody gives.
func TestMetricsExist(t *testing.T) {
	var sources []byte
	for _, f := range []string{"pkg/web/metrics.go", "pkg/ovs/status.go"} {
		data, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, data...)
	}
	given := string(sources)
	for _, f := range []string{"ghostbridge.rules.yml", "dashboards/ghostbridge.json"} {
		data, err := os.ReadFile(filepath.Join(root, monitoring, f))
		if err != nil {
			t.Fatal(err)
		}
		asked := metricName.FindAllString(string(data), -1)
		if len(asked) < 5 {
			t.Errorf("%s asks for %d numbers", f, len(asked))
		}
		for _, name := range asked {
			short := strings.TrimPrefix(strings.TrimPrefix(name, "ghostbridge_ovs_"), "ghostbridge_")
			if !strings.Contains(given, `"`+short+`"`) && !strings.Contains(given, name) {
				t.Errorf("%s asks for %s, which nobody gives", f, name)
			}
		}
	}
}

// Prometheus scrapes the same on Debian and on NixOS.
func TestScrapes(t *testing.T) {
	var h host
	if err := json.Unmarshal(eval(t, "(import ./nix/tests/eval.nix { }).host"), &h); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, monitoring, "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var jobs []string
	for _, c := range h.Prometheus.ScrapeConfigs {
		jobs = append(jobs, c.JobName+" "+strings.Join(c.StaticConfigs[0].Targets, ","))
	}
	var debian []string
	name := ""
	for line := range strings.Lines(strings.ReplaceAll(string(data), "\n  #", "\n  ")) {
		if m := regexp.MustCompile(`job_name: (\S+)`).FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if m := regexp.MustCompile(`targets: \['([^']+)'\]`).FindStringSubmatch(line); m != nil {
			debian = append(debian, name+" "+m[1])
		}
	}
	if len(jobs) != 4 || !slices.Equal(jobs, debian) {
		t.Errorf("NixOS %q, Debian %q", jobs, debian)
	}
	// The dashboards are of the source that is provisioned.
	board, err := os.ReadFile(filepath.Join(root, monitoring, "dashboards/ghostbridge.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(board) || !strings.Contains(string(board), `"ghostbridge-prometheus"`) {
		t.Error("the dashboard is of another source")
	}
}
