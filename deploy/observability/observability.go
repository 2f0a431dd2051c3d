// Package observability is what a plane is watched with: alert rules, a dashboard, and what to scrape. Everything in it is about figures
// that a running plane tells; a test sees that each exists, and that each alert has a section in docs/operations.md.
package observability

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"text/template"
	"time"

	"gopkg.in/yaml.v3"
)

// Rules are alert rules for Prometheus, of a plane as it comes; For are those of one.
//
//go:embed rules.yaml
var Rules []byte

// For are the rules for a plane: without those of a gateway that isn't scraped, and with backups that are overdue after one and a half times the
// pace at which they are made, 0 for never.
func For(targets []Target, backupEvery time.Duration) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(Rules, &doc); err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	gateway := slices.ContainsFunc(targets, func(t Target) bool { return t.Job == "gateway" })
	rules := field(field(doc.Content[0], "groups").Content[0], "rules")
	rules.Content = slices.DeleteFunc(rules.Content, func(rule *yaml.Node) bool {
		switch field(rule, "alert").Value {
		case "GatewayAway":
			return !gateway
		case "BackupOverdue":
			field(rule, "expr").Value = fmt.Sprintf("a3_backup_age_seconds > %.0f", backupEvery.Seconds()+backupEvery.Seconds()/2)
			return backupEvery == 0
		}
		return false
	})
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write the rules: %w", err)
	}
	return out.Bytes(), nil
}

// field is what a mapping has under a name.
func field(of *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(of.Content); i += 2 {
		if of.Content[i].Value == name {
			return of.Content[i+1]
		}
	}
	return &yaml.Node{}
}

// Dashboard is a dashboard for Grafana.
//
//go:embed dashboard.json
var Dashboard []byte

//go:embed prometheus.yaml
var scrape string

// Target is a process that tells its figures.
type Target struct {
	// Job is the component.
	Job string
	// Address is where it tells them, host:port.
	Address string
}

// Scrape is a configuration of Prometheus for some targets.
func Scrape(targets []Target) ([]byte, error) {
	t, err := template.New("prometheus.yaml").Parse(scrape)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, struct{ Targets []Target }{targets}); err != nil {
		return nil, fmt.Errorf("write what is scraped: %w", err)
	}
	return out.Bytes(), nil
}
