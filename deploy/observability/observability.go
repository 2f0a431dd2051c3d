// Package observability is what a plane is watched with: alert rules, a dashboard, and what to scrape. Everything in it is about figures
// that a running plane tells; a test sees that each exists, and that each alert has a section in docs/operations.md.
package observability

import (
	"bytes"
	_ "embed"
	"fmt"
	"text/template"
)

// Rules are alert rules for Prometheus.
//
//go:embed rules.yaml
var Rules []byte

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
