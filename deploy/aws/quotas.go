// Package aws is what fleet knows of AWS as data. It promises that a table of quotas which loads has a name, a default and a source in
// every line; what an account was granted beyond the defaults it doesn't know.
package aws

import (
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// QuotasCSV is the table of AWS's default quotas, each with its source.
//
//go:embed quotas.csv
var QuotasCSV string

// Quota is one line of the table.
type Quota struct {
	// Service and Name are what AWS calls it; Code is its code in Service Quotas, empty where it has none.
	Service, Name, Code string
	// Default is what an account has before it asks, in AWS's words; Adjustable says whether, and how far, it may ask for more.
	Default, Adjustable string
	// Source is the page that says so.
	Source string
	// Line in the table.
	Line int
}

var (
	columns = []string{"service", "quota_name", "quota_code", "default", "adjustable", "source"}
	number  = regexp.MustCompile(`^[0-9][0-9,]*`)
	rate    = regexp.MustCompile(`([0-9][0-9,]*)/s`)
	ceiling = regexp.MustCompile(`\bto ([0-9][0-9,]*)`)
)

// ParseQuotas reads a table. Name is what errors call it; they name the line and the field too.
func ParseQuotas(name string, from io.Reader) ([]Quota, error) {
	r := csv.NewReader(from)
	r.FieldsPerRecord = len(columns)
	head, err := r.Read()
	if err != nil && !errors.Is(err, csv.ErrFieldCount) {
		return nil, fmt.Errorf("read the head of %s: %w", name, err)
	}
	if !slices.Equal(head, columns) {
		return nil, fmt.Errorf("%s: line 1 is %q: a table of quotas begins with %q", name, strings.Join(head, ","), strings.Join(columns, ","))
	}
	var quotas []Quota
	lines := map[string]int{}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return quotas, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		line, _ := r.FieldPos(0)
		for i, f := range fields {
			if f == "" && columns[i] != "quota_code" {
				return nil, fmt.Errorf("%s: line %d: %s is empty: write it, or take the line out", name, line, columns[i])
			}
		}
		key := fields[0] + "\x00" + fields[1]
		if first, ok := lines[key]; ok {
			return nil, fmt.Errorf("%s: line %d: quota_name %q of %s stands in line %d already: keep one", name, line, fields[1], fields[0], first)
		}
		lines[key] = line
		quotas = append(quotas, Quota{Service: fields[0], Name: fields[1], Code: fields[2], Default: fields[3], Adjustable: fields[4], Source: fields[5], Line: line})
	}
}

// Count is the default as a number: the one that it begins with.
func (q Quota) Count() (int, error) {
	return q.number(number.FindString(q.Default), "a number first, as in `1,000 (of any state)`")
}

// PerSecond is the default as a rate; where Regions differ, the lowest of them.
func (q Quota) PerSecond() (int, error) {
	lowest, err := q.number("", "a rate, as in `5/s`")
	for _, m := range rate.FindAllStringSubmatch(q.Default, -1) {
		n, bad := q.number(m[1], "a rate, as in `5/s`")
		if bad != nil {
			return 0, bad
		}
		if err != nil || n < lowest {
			lowest, err = n, nil
		}
	}
	return lowest, err
}

func (q Quota) number(text, want string) (int, error) {
	n, err := strconv.Atoi(strings.ReplaceAll(text, ",", ""))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("line %d of the table of quotas: default of %s, %q, is %q: it has %s", q.Line, q.Service, q.Name, q.Default, want)
	}
	return n, nil
}

// CanGrow says whether an account may ask for more.
func (q Quota) CanGrow() bool { return strings.HasPrefix(q.Adjustable, "Yes") }

// Ceiling is the most that is published as granted; 0 where nothing is published.
func (q Quota) Ceiling() int {
	m := ceiling.FindStringSubmatch(q.Adjustable)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
	if err != nil {
		return 0
	}
	return n
}
