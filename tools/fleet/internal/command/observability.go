package command

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"a3os.app/deploy/observability"
	"a3os.app/tools/fleet/internal/plane"
)

func (a *app) observabilityCommand() *cobra.Command {
	return &cobra.Command{Use: "observability DIR", Short: "Write alert rules, a dashboard and what Prometheus scrapes of this plane into a directory",
		Args: exactly("DIR"), RunE: func(_ *cobra.Command, args []string) error { return a.observability(args[0]) }}
}

func (a *app) observability(dir string) error {
	p, err := a.plane()
	if err != nil {
		return err
	}
	targets, err := p.Targets()
	if err != nil {
		return err
	}
	for _, t := range targets {
		if t.Address == plane.MetricsAddress {
			_, _ = fmt.Fprintf(a.errOut, "Prometheus goes to %[1]s for the registry's figures: have fleet metrics --listen %[1]s tell them there.\n", plane.MetricsAddress)
		}
	}
	scrape, err := observability.Scrape(targets)
	if err != nil {
		return err
	}
	made, err := p.BroughtUp()
	if err != nil {
		return err
	}
	rules, err := observability.For(targets, made.BackupEvery)
	if err != nil {
		return err
	}
	// There is no secret in them, and Prometheus is another user.
	const walk, read = 0o755, 0o644
	if err := os.MkdirAll(dir, walk); err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{"prometheus.yaml", scrape}, {"rules.yaml", rules}, {"dashboard.json", observability.Dashboard}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.content, read); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.out, path); err != nil {
			return err
		}
	}
	return nil
}
