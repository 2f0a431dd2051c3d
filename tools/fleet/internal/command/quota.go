package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/deploy/aws"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/quota"
)

const quotaHelp = `Say which of AWS's default quotas so many tenants meet in one account and one Region, in the order in which a growing fleet meets them,
what to ask AWS for, and how far that takes; and what a tenant of each tier costs a month at list prices, before what is paid by use. What a
tenant takes is counted from the templates that fleet aws render prints; nothing is called and nothing is made.

  fleet quota plan --tenants 100
  fleet quota plan --tenants 1000 --tier dedicated -o json
  fleet quota plan --tenants 40 --tier account      what they take of the plane's account, each having one to itself
  fleet quota plan --tenants 100 --quotas mine.csv --prices ours.csv      with tables of your own, in the form of those in deploy/aws`

func (a *app) quotaCommand() *cobra.Command {
	var tenants, atOnce int
	var tier, file, prices string
	c := &cobra.Command{Use: "plan", Short: "Say which quotas of AWS so many tenants meet", Long: quotaHelp, Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return a.quotaPlan(tenants, atOnce, tier, file, prices) }}
	c.Flags().IntVar(&tenants, "tenants", 0, "how many tenants")
	c.Flags().IntVar(&atOnce, "max-parallel", 1, "how many of them a rollout changes at once")
	c.Flags().StringVar(&tier, "tier", "database", "tier of all of them: database, dedicated, or account: dedicated and each in an account of its own")
	c.Flags().StringVar(&file, "quotas", "", "a table of quotas instead of the one that fleet has")
	c.Flags().StringVar(&prices, "prices", "", "a table of prices instead of the one that fleet has")
	return group("quota", "Plan for the quotas of a cloud", c, a.quotaCheckCommand())
}

const checkHelp = `Ask Service Quotas what the account has of each quota that so many tenants take of, and say whether it is enough. What Service Quotas doesn't
know is held against the table's default, and said. It needs servicequotas:GetServiceQuota and GetAWSDefaultServiceQuota, and changes nothing.
It ends with 1 where something is not enough.

  fleet quota check --tenants 100 --tier dedicated --region eu-central-1`

func (a *app) quotaCheckCommand() *cobra.Command {
	var tenants, atOnce int
	var tier, file, region string
	c := &cobra.Command{Use: "check", Short: "Hold a plan against what an account has", Long: checkHelp, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.quotaCheck(c.Context(), tenants, atOnce, tier, file, region)
		}}
	c.Flags().IntVar(&tenants, "tenants", 0, "how many tenants")
	c.Flags().IntVar(&atOnce, "max-parallel", 1, "how many of them a rollout changes at once")
	c.Flags().StringVar(&tier, "tier", "database", "tier of all of them: database, dedicated, or account: dedicated and each in an account of its own")
	c.Flags().StringVar(&file, "quotas", "", "a table of quotas instead of the one that fleet has")
	c.Flags().StringVar(&region, "region", "", "Region")
	return c
}

func (a *app) quotaCheck(ctx context.Context, tenants, atOnce int, tier, file, region string) error {
	if region == "" {
		return usageError{errors.New("--region is empty: name the Region, as eu-central-1")}
	}
	quotas, err := table("quotas", file, "quotas.csv", aws.QuotasCSV, aws.ParseQuotas)
	if err != nil {
		return err
	}
	p, err := quota.Make(quotas, tenants, tier, atOnce)
	if err != nil {
		return usageError{err}
	}
	cfg, err := session.Load(ctx, region)
	if err != nil {
		return err
	}
	answers, err := p.Check(ctx, cfg)
	if err != nil {
		return err
	}
	short := 0
	var rows [][]string
	for _, answer := range answers {
		if !answer.Enough {
			short++
		}
		granted := "not known there"
		if answer.Asked {
			granted = strconv.FormatFloat(answer.Granted, 'f', -1, 64)
		}
		rows = append(rows, []string{answer.Service + ": " + answer.Quota, granted, strconv.Itoa(answer.Default), strconv.Itoa(answer.Needed), strconv.Itoa(answer.CarriesGranted), strconv.FormatBool(answer.Enough)})
	}
	if a.format == "json" {
		err = a.json(answers)
	} else {
		err = a.table([]string{"QUOTA", "GRANTED", "DEFAULT", "NEEDED", "CARRIES", "ENOUGH"}, rows)
	}
	if err == nil && short > 0 {
		err = fmt.Errorf("%d quotas are not enough for %d tenants: fleet quota plan says what to ask for", short, tenants)
	}
	return err
}

// table reads a table that fleet has, or the operator's own.
func table[T any](what, own, name, text string, parse func(string, io.Reader) (T, error)) (T, error) {
	from := io.Reader(strings.NewReader(text))
	if own != "" {
		f, err := os.Open(own) //nolint:gosec // G304: the operator names the file, and reads it with their own rights
		if err != nil {
			var none T
			return none, usageError{fmt.Errorf("open the table of %s: %w", what, err)}
		}
		defer func() { _ = f.Close() }()
		name, from = own, f
	}
	out, err := parse(name, from)
	if err != nil {
		return out, usageError{err}
	}
	return out, nil
}

func (a *app) quotaPlan(tenants, atOnce int, tier, quotasFile, pricesFile string) error {
	quotas, err := table("quotas", quotasFile, "quotas.csv", aws.QuotasCSV, aws.ParseQuotas)
	if err != nil {
		return err
	}
	prices, err := table("prices", pricesFile, "prices.csv", aws.PricesCSV, aws.ParsePrices)
	if err != nil {
		return err
	}
	p, err := quota.Make(quotas, tenants, tier, atOnce)
	if err != nil {
		return usageError{err}
	}
	if p.Costs, err = quota.Price(prices); err != nil {
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
	for _, l := range p.Limits {
		if l.Changing > 0 {
			if _, err = fmt.Fprintf(a.out, "\nOf what is needed of %s, %g are for what changes, tasks that start beside those that run: so many at once are %d, as --max-parallel has it, or the plane itself.\n", l.Quota, l.Changing, atOnce); err != nil {
				return err
			}
		}
	}
	if _, err = fmt.Fprintf(a.out, "\nA rollout to all %d tenants takes %s or more under the default rates.\n\n", p.Tenants, p.Longest().Round(time.Second)); err != nil {
		return err
	}
	rows = nil
	for _, c := range p.Costs.Tenant[tier].Charges {
		rows = append(rows, []string{c.Item, strconv.FormatFloat(c.Count, 'g', 3, 64), fmt.Sprintf("%.2f", c.USD), c.Region, c.Date, c.Source})
	}
	if err := a.table([]string{"A TENANT PAYS FOR", "COUNT", "USD A MONTH", "REGION", "PRICE OF", "SOURCE"}, rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "\nA tenant costs %.2f USD a month in tier database, %.2f in tier dedicated, %.2f in an account of its own, and the plane %.2f once: list prices, before what is paid by use.\n",
		p.Costs.Tenant["database"].USD, p.Costs.Tenant["dedicated"].USD, p.Costs.Tenant["account"].USD, p.Costs.Plane.USD)
	return err
}
