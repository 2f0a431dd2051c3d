package observability_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"a3os.app/deploy/observability"
)

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func read(t *testing.T) rules {
	t.Helper()
	var r rules
	if err := yaml.Unmarshal(observability.Rules, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Groups) != 1 || len(r.Groups[0].Rules) < 10 {
		t.Fatalf("%d groups of rules", len(r.Groups))
	}
	return r
}

// anchors are the sections of a page, as GitHub and others link to them.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#{2,4} (.+)$`).FindAllStringSubmatch(string(text), -1) {
		out[anchorOf(m[1])] = true
	}
	return out
}

// section is the text of a page's section.
func section(t *testing.T, page, anchor string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(string(text), "\n## ") {
		title, _, _ := strings.Cut(part, "\n")
		if anchorOf(title) == anchor {
			return part
		}
	}
	return ""
}

func anchorOf(title string) string {
	kept := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(title), "")
	return strings.ReplaceAll(kept, " ", "-")
}

func TestEveryAlertSaysHowBadItIsAndWhatToDo(t *testing.T) {
	sections := anchors(t, "../../docs/operations.md")
	for _, r := range read(t).Groups[0].Rules {
		page, anchor, _ := strings.Cut(r.Annotations["runbook"], "#")
		if page != "docs/operations.md" || !sections[anchor] {
			t.Errorf("%s has the runbook %q, and there is no such section", r.Alert, r.Annotations["runbook"])
		}
		if text := section(t, "../../docs/operations.md", anchor); !strings.Contains(text, "`"+r.Alert+"`") {
			t.Errorf("%s has the runbook %s, which does not name it", r.Alert, anchor)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" || r.Annotations["summary"] == "" {
			t.Errorf("%s has severity %q and summary %q", r.Alert, s, r.Annotations["summary"])
		}
	}
}

func TestEveryAlertIsSeenToFireAndToBeSilent(t *testing.T) {
	text, err := os.ReadFile("rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tests struct {
		Tests []struct {
			Alerts []struct {
				Name     string `yaml:"alertname"`
				Expected []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	if err := yaml.Unmarshal(text, &tests); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, x := range tests.Tests {
		for _, a := range x.Alerts {
			if len(a.Expected) > 0 {
				fires[a.Name] = true
			} else {
				silent[a.Name] = true
			}
		}
	}
	for _, r := range read(t).Groups[0].Rules {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s is tested to fire: %v, to be silent: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
}

// An alert is worth what counts for it: each figure that one rests on is read by a test of the program that tells it. That the test sees it move is
// the test's, and what this can't tell.
func TestEveryFigureOfAnAlertIsReadByATest(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir("../../services", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		tests.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const atLeast = 25
	figures := map[string]bool{}
	for _, r := range read(t).Groups[0].Rules {
		for _, name := range regexp.MustCompile(`\b(?:a3|registry|gateway)_[a-z_]+`).FindAllString(r.Expr, -1) {
			figures[name] = true
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(tests.String()) {
				t.Errorf("%s rests on %s, which no test of services reads", r.Alert, name)
			}
		}
	}
	if len(figures) < atLeast {
		t.Errorf("only %d figures are found", len(figures))
	}
}

func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("the alert rules are not tested: promtool isn't here, it is in Debian's package prometheus")
	}
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), path, args...).CombinedOutput()
	return string(out), err
}

func TestRulesDoWhatTheirTestsSay(t *testing.T) {
	if out, err := promtool(t, "test", "rules", "rules_test.yaml"); err != nil {
		t.Error(out)
	}
	// The tests themselves can fail: one threshold that was moved is noticed.
	dir := t.TempDir()
	tests, err := os.ReadFile("rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	moved := bytes.Replace(observability.Rules, []byte("age_seconds > 180"), []byte("age_seconds > 1800"), 1)
	for name, content := range map[string][]byte{"rules.yaml": moved, "rules_test.yaml": tests} {
		if err := os.WriteFile(dir+"/"+name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := promtool(t, "test", "rules", dir+"/rules_test.yaml"); err == nil || !strings.Contains(out, "SetSilent") {
		t.Errorf("a threshold was moved, and the tests say: %v %s", err, out)
	}
}

// A plane's rules are the rules but for what the plane hasn't: no gateway that is scraped, no backups, backups at another pace.
func TestRulesAreThoseOfThePlane(t *testing.T) {
	alerts := func(targets []observability.Target, every time.Duration) map[string]string {
		text, err := observability.For(targets, every)
		if err != nil {
			t.Fatal(err)
		}
		path := t.TempDir() + "/rules.yaml"
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := exec.LookPath("promtool"); err == nil {
			if out, err := promtool(t, "check", "rules", path); err != nil {
				t.Errorf("%s\n%s", text, out)
			}
		}
		var r rules
		if err := yaml.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, rule := range r.Groups[0].Rules {
			out[rule.Alert] = rule.Expr
		}
		return out
	}
	gateway := []observability.Target{{Job: "registry", Address: "127.0.0.1:4001"}, {Job: "gateway", Address: "127.0.0.1:4002"}}
	all := map[string]string{}
	for _, rule := range read(t).Groups[0].Rules {
		all[rule.Alert] = rule.Expr
	}
	if got := alerts(gateway, 24*time.Hour); !maps.Equal(got, all) {
		t.Errorf("a plane as it comes has the rules %v, want %v", got, all)
	}
	if got := alerts(gateway, 6*time.Hour)["BackupOverdue"]; got != "a3_backup_age_seconds > 32400" {
		t.Errorf("backups every six hours are overdue where %s", got)
	}
	bare := alerts(gateway[:1], 0)
	if len(bare) != len(all)-2 || bare["GatewayAway"] != "" || bare["BackupOverdue"] != "" {
		t.Errorf("a plane without a gateway that is scraped and without backups has the rules %v", bare)
	}
}

func TestScrapeIsAConfigurationOfPrometheus(t *testing.T) {
	text, err := observability.Scrape([]observability.Target{{Job: "registry", Address: "127.0.0.1:4001"}, {Job: "gateway", Address: "127.0.0.1:4002"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"rules.yaml": observability.Rules, "prometheus.yaml": text} {
		if err := os.WriteFile(dir+"/"+name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := promtool(t, "check", "config", dir+"/prometheus.yaml"); err != nil {
		t.Errorf("%s\n%s", text, out)
	}
}

func TestDashboardAsksForWhatItShows(t *testing.T) {
	var d struct {
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(observability.Dashboard, &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || len(p.Targets) == 0 || ids[p.ID] {
			t.Errorf("panel %d %q has %d targets", p.ID, p.Title, len(p.Targets))
		}
		ids[p.ID] = true
		for _, x := range p.Targets {
			if strings.TrimSpace(x.Expr) == "" {
				t.Errorf("%q asks for nothing", p.Title)
			}
		}
	}
}
