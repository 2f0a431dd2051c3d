package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/config"
)

// fixed are settings of services that no blueprint names, and why: tests and measurements set some of them, an operator can't.
var fixed = map[string]string{
	"A3_DEAD_LETTERS_KEPT":        "90 days is a promise of the documents",
	"A3_DEAD_LETTERS_MOST":        "bounds the table that they are in",
	"A3_USAGE_EVERY":              "an hour is what licences are told by",
	"A3_REPORT_EVERY":             "the registry has sets report less often by itself, the more there are",
	"A3_REPORTS_PER_SECOND":       "what one registry takes, measured",
	"A3_SLUG_QUARANTINE":          "30 days is a promise of the documents",
	"A3_LEASE":                    "what fleet renews by",
	"A3_PLAN_LASTS":               "a day is a promise of the documents",
	"A3_MAX_CONNECTIONS":          "made for the memory that the gateway's blueprint gives it",
	"A3_MAX_IN_FLIGHT":            "as for connections",
	"A3_MAX_IN_FLIGHT_PER_TENANT": "as for connections",
	"A3_TENANT_BURST":             "goes with the rate, which an operator sets",
	"A3_TURN_WITHIN":              "goes with the rate",
	"A3_MAX_HEADER_BYTES":         "what browsers and proxies send at most",
	"A3_HEADER_TIMEOUT":           "bounds what slow senders hold",
	"A3_BODY_TIMEOUT":             "bounds what slow senders hold",
	"A3_IDLE_TIMEOUT":             "bounds what idle connections hold",
	"A3_PATIENCE":                 "as long as a service may take to start",
	"A3_SLOW_ANSWER":              "below what services give their calls",
	"A3_ANSWER_WITHIN":            "above what services give their calls",
	"A3_LEAVE_WITHIN":             "below what a platform lets a process end in",
	"A3_DRAIN_WITHIN":             "below what a platform lets a process end in",
}

// A setting that no blueprint names can't be set by an operator, whatever a document says.
func TestEachSettingOfAServiceComesFromABlueprintOrIsFixed(t *testing.T) {
	given := map[string]bool{}
	for _, load := range []func() (*blueprint.Blueprint, error){blueprint.AccessOS, blueprint.Plane} {
		b, err := load()
		if err != nil {
			t.Fatal(err)
		}
		envs := []map[string]string{b.Env, b.Database.Migrate.Env, b.RecoverAdmin.Env, b.Backup.Verify.Env, b.Backup.Restored.Env}
		for _, c := range b.Components {
			envs = append(envs, c.Env)
		}
		if b.MachineReader != nil {
			envs = append(envs, b.MachineReader.Env)
		}
		for _, env := range envs {
			for name := range env {
				given[strings.TrimSuffix(name, "_FILE")] = true
			}
		}
	}
	root, read := filepath.Join("..", ".."), map[string]bool{}
	for _, dir := range []string{"services", "libs/set", "libs/plane"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				f, ok := n.(*ast.Field)
				if !ok || f.Tag == nil {
					return true
				}
				tag, err := strconv.Unquote(f.Tag.Value)
				if name := reflect.StructTag(tag).Get("env"); err == nil && name != "" {
					read[config.Prefix+name] = true
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range read {
		switch {
		case given[name] && fixed[name] != "":
			t.Errorf("%s stands in a blueprint and on the list of what is fixed: take it off the list", name)
		case !given[name] && fixed[name] == "":
			t.Errorf("%s stands in no blueprint, so fleet gives it to nobody: name it in one, or say on the list why it is fixed", name)
		}
	}
	for name := range fixed {
		if !read[name] {
			t.Errorf("%s is on the list and nobody reads it: take it off", name)
		}
	}
	const few = 60
	if len(read) < few {
		t.Errorf("only %d settings were found", len(read))
	}
}
