package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/command"
)

// The map of the repository names each package of libs once, and none that isn't there.
func TestTheMapNamesEachLibrary(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for line := range strings.Lines(string(text)) {
		if cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | "); strings.HasPrefix(cell, "`libs/") {
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				named = append(named, strings.TrimPrefix(name[1], "libs/"))
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "libs"))
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "internal" {
			there = append(there, e.Name())
		}
	}
	slices.Sort(named)
	if !slices.Equal(named, there) {
		t.Errorf("docs/architecture.md names %v\nand there are %v", named, there)
	}
}

// Stacks that administrators deploy nobody protects but they: the walk at AWS has them do so, by the policy that fleet prints, as soon as there is something in them, and before it has
// them be changed. That policy keeps what holds data.
func TestStacksOfAdministratorsAreProtected(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "aws.md"))
	if err != nil {
		t.Fatal(err)
	}
	docs := string(text)
	const policy = "aws cloudformation set-stack-policy --stack-name a3-dev-plane --stack-policy-body file://keep.json\n"
	const protected = "aws cloudformation update-termination-protection --stack-name a3-dev-plane --enable-termination-protection\n"
	between := func(from, to string) string {
		t.Helper()
		_, after, begins := strings.Cut(docs, from)
		part, _, ends := strings.Cut(after, to)
		if !begins || !ends {
			t.Fatalf("docs/aws.md has no %q before a %q", from, to)
		}
		return part
	}
	for name, part := range map[string]string{"the plane's": between("--template-file first.json", "aws cloudformation update-stack"), "a tenant's account's": between("--first --tenant tnt_… --slug acme … > account.json", "| step |")} {
		if !strings.Contains(part, policy) || !strings.Contains(part, protected) {
			t.Errorf("docs/aws.md has nobody protect %s stack: %s", name, part)
		}
	}
	if part := between("> link.json`", "Without step 3"); !strings.Contains(part, "aws cloudformation update-termination-protection --stack-name a3-<plane>-tnt-…-link --enable-termination-protection") {
		t.Errorf("docs/aws.md has nobody protect the stack of the way to a tenant's account: %s", part)
	}
	if !strings.Contains(between("--template-file first.json", "set-stack-policy"), "fleet aws render --stack-policy > keep.json\n") {
		t.Error("docs/aws.md doesn't say where keep.json comes from")
	}
	// A change of what all tenants stand on is looked at before it is made.
	change := between("Another release: where tenants' stacks", "execute-change-set --stack-name a3-dev-plane")
	for _, part := range []string{"create-change-set", "wait change-set-create-complete --stack-name a3-dev-plane", "describe-change-set --stack-name a3-dev-plane", "Replacement"} {
		if !strings.Contains(change, part) {
			t.Errorf("docs/aws.md has nobody look at a change of the plane's stack by %q: %s", part, change)
		}
	}

	var out, errOut bytes.Buffer
	if code := command.Run(t.Context(), []string{"aws", "render", "--stack-policy"}, nil, &out, &errOut); code != 0 {
		t.Fatal(code, &errOut)
	}
	var printed struct {
		Statement []struct {
			Effect    string
			Action    any
			Condition map[string]map[string][]string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &printed); err != nil || len(printed.Statement) != 2 {
		t.Fatalf("%s: %v", &out, err)
	}
	kept := printed.Statement[1].Condition["StringEquals"]["ResourceType"]
	for _, kind := range []string{"AWS::KMS::Key", "AWS::RDS::DBInstance", "AWS::S3::Bucket"} {
		if printed.Statement[1].Effect != "Deny" || !slices.Contains(kept, kind) {
			t.Errorf("the policy keeps no %s: %s", kind, &out)
		}
	}
}

// What a step of the walk at AWS asks for, a step before it or the step itself says how to get.
func TestTheWalkSaysWhereThePrefixListComesFrom(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "aws.md"))
	if err != nil {
		t.Fatal(err)
	}
	found, used := strings.Index(string(text), "aws ec2 describe-managed-prefix-lists"), strings.Index(string(text), "--prefix-list pl-…")
	if found < 0 || used < 0 || used < found {
		t.Errorf("docs/aws.md finds S3's prefix list at %d, and uses it at %d", found, used)
	}
}
