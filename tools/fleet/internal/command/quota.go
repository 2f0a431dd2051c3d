package command

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/deploy/aws"
	"a3os.app/tools/fleet/internal/quota"
)

const quotaHelp = `Say which of AWS's default quotas so many tenants meet in one account and one Region, in the order in which a growing fleet meets them,
what to ask AWS for, and how far that takes. What a tenant takes is counted from the blueprints; nothing is called and nothing is made.

  fleet quota plan --tenants 100
  fleet quota plan --tenants 1000 --tier dedicated -o json
  fleet quota plan --tenants 100 --quotas mine.csv      with a table of your own, in the form of deploy/aws/quotas.csv`

func (a *app) quotaCommand() *cobra.Command {
	var tenants int
	var tier, file string
	c := &cobra.Command{Use: "plan", Short: "Say which quotas of AWS so many tenants meet", Long: quotaHelp, Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return a.quotaPlan(tenants, tier, file) }}
	c.Flags().IntVar(&tenants, "tenants", 0, "how many tenants")
	c.Flags().StringVar(&tier, "tier", "database", "tier of all of them: database or dedicated")
	c.Flags().StringVar(&file, "quotas", "", "a table of quotas instead of the one that fleet has")
	return group("quota", "Plan for the quotas of a cloud", c)
}

func (a *app) quotaPlan(tenants int, tier, file string) error {
	name, from := "quotas.csv", io.Reader(strings.NewReader(aws.QuotasCSV))
	if file != "" {
		f, err := os.Open(file) //nolint:gosec // G304: the operator names the file, and reads it with their own rights
		if err != nil {
			return usageError{fmt.Errorf("open the table of quotas: %w", err)}
		}
		defer func() { _ = f.Close() }()
		name, from = file, f
	}
	quotas, err := aws.ParseQuotas(name, from)
	if err != nil {
		return usageError{err}
	}
	p, err := quota.Make(quotas, tenants, tier)
	if err != nil {
		return usageError{err}
	}
	if a.format == "json" {
		return a.json(p)
	}
	var rows [][]string
	for i, l := range p.Limits {
		if i >= 5 && !l.Met {
			break
		}
		ask := "-"
		if l.Ask > 0 {
			ask = fmt.Sprintf("%d (takes %d tenants)", l.Ask, l.CarriesAsked)
		}
		rows = append(rows, []string{l.Service + ": " + l.Quota, strconv.Itoa(l.Default), strconv.FormatFloat(l.PerTenant, 'g', 3, 64), strconv.Itoa(l.Needed),
			strconv.Itoa(l.Carries), strconv.FormatBool(l.Met), ask, l.Next, l.Source})
	}
	if err := a.table([]string{"QUOTA", "DEFAULT", "A TENANT", "NEEDED", "CARRIES", "MET", "ASK FOR", "NEXT", "SOURCE"}, rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "\nA rollout to all %d tenants takes %s or more under the default rates.\n", p.Tenants, p.Longest().Round(time.Second))
	return err
}
