// Package build makes releases: it asks the program itself which migrations it brings, holds them against the release before, and has
// the manifest signed. It promises that nothing is signed whose migrations break the release before without a reason in the migration
// itself, or that changed a migration which was released. It relies on libs/additive for what a migration does, and runs the program
// that it makes a release of, without any environment: who builds a release trusts what is built.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/additive"
	"a3os.app/libs/clip"
	"a3os.app/libs/fault"
	"a3os.app/libs/pgserver"
	"a3os.app/libs/release"
)

// Request is what a release is made of.
type Request struct {
	// Plane and Blueprint that it is for.
	Plane     string
	Blueprint *blueprint.Blueprint
	// Version of it.
	Version string
	// Artefacts are files, by the names that blueprints know them by.
	Artefacts map[string]string
	// Minimum version that a set may be upgraded from; empty for any.
	Minimum string
	// Previous release, which migrations are held against; nil for none.
	Previous *registryv1.ReleaseManifest
	// Note is told of what takes a while.
	Note func(string)
}

// Manifest makes the manifest of a release, and answers what its migrations take from the release before with their authors' consent.
func Manifest(ctx context.Context, r Request) (*registryv1.ReleaseManifest, []additive.Finding, error) {
	m := &registryv1.ReleaseManifest{
		Plane: r.Plane, Version: r.Version, MinimumVersion: r.Minimum, Blueprint: r.Blueprint.Name, BlueprintDigest: r.Blueprint.Digest,
	}
	program := ""
	for name, file := range r.Artefacts {
		a, err := artefact(name, file)
		if err != nil {
			return nil, nil, err
		}
		if name == r.Blueprint.Artefact {
			program = file
		}
		m.Artefacts = append(m.Artefacts, a)
	}
	slices.SortFunc(m.Artefacts, func(a, b *registryv1.Artefact) int { return strings.Compare(a.GetName(), b.GetName()) })
	if program == "" {
		return nil, nil, fault.New(fault.InvalidArgument, "the blueprint %s runs the artefact %s: name its file, --artefact %s=FILE", r.Blueprint.Name, r.Blueprint.Artefact, r.Blueprint.Artefact)
	}
	listed, err := migrations(ctx, r.Blueprint, program)
	if err != nil {
		return nil, nil, err
	}
	findings, err := check(ctx, r, listed)
	if err != nil {
		return nil, findings, err
	}
	if breaking := additive.Breaking(findings); len(breaking) > 0 {
		return nil, findings, broken(breaking)
	}
	for _, l := range listed {
		m.Migrations = append(m.Migrations, &registryv1.Migration{Name: l.Name, Digest: l.Digest, Accepted: why(findings, l.Name)})
	}
	m.OldestCompatible = oldest(r, findings)
	return m, findings, release.Check(m)
}

func broken(findings []additive.Finding) error {
	var texts []string
	for _, f := range findings {
		texts = append(texts, f.String())
	}
	return fault.New(fault.FailedPrecondition, "migrations break the release before:\n  %s\nadd only, and take away a release later; where the release before doesn't use it, the migration itself says so: -- accepted RULE: why",
		strings.Join(texts, "\n  "))
}

func why(findings []additive.Finding, name string) string {
	var reasons []string
	for _, f := range findings {
		if reason := f.Rule + ": " + f.Accepted; f.Migration == name && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	const most = 500
	return clip.Text(strings.Join(reasons, "; "), most)
}

// oldest is the oldest release whose programs work with the database. What was accepted was accepted for the release before alone.
func oldest(r Request, findings []additive.Finding) string {
	switch {
	case r.Previous == nil:
		return ""
	case len(findings) > 0:
		return r.Previous.GetVersion()
	}
	return r.Previous.GetOldestCompatible()
}

func artefact(name, file string) (*registryv1.Artefact, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "artefact %s: %v", name, err)
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return nil, fmt.Errorf("read artefact %s: %w", name, err)
	}
	return &registryv1.Artefact{Name: name, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: size,
		MediaType: fmt.Sprintf("application/vnd.a3os.program.v1.%s-%s", runtime.GOOS, runtime.GOARCH)}, nil
}

// listed is a migration as the program tells of it.
type listed struct {
	Name, Digest, SQL string
}

func migrations(ctx context.Context, b *blueprint.Blueprint, program string) ([]listed, error) {
	if b.Database == nil || len(b.Database.Migrate.List) == 0 {
		return nil, nil
	}
	const most = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, b.Database.Migrate.List...) //nolint:gosec // who builds a release runs it
	cmd.Env, cmd.Dir = []string{}, "/"
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s which migrations it brings: %w", program, err)
	}
	var all []listed
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("%s does not say which migrations it brings, as JSON: %w", program, err)
	}
	for _, l := range all {
		if release.Digest([]byte(l.SQL)) != l.Digest {
			return nil, fmt.Errorf("%s says another digest of migration %s than its text has", program, l.Name)
		}
	}
	return all, nil
}

// check holds migrations against the release before.
func check(ctx context.Context, r Request, all []listed) ([]additive.Finding, error) {
	released := map[string]string{}
	for _, m := range r.Previous.GetMigrations() {
		released[m.GetName()] = m.GetDigest()
	}
	var before, added []additive.Migration
	for _, l := range all {
		m := additive.Migration{Name: l.Name, SQL: l.SQL}
		switch had, ok := released[l.Name]; {
		case !ok:
			added = append(added, m)
		case had != l.Digest:
			return nil, fault.New(fault.FailedPrecondition, "migration %s is not what release %s had: what was released is never changed, write another one", l.Name, r.Previous.GetVersion())
		default:
			before = append(before, m)
			delete(released, l.Name)
		}
	}
	for name := range released {
		return nil, fault.New(fault.FailedPrecondition, "migration %s of release %s is gone: what was released stays", name, r.Previous.GetVersion())
	}
	if r.Previous == nil || len(added) == 0 {
		return nil, nil
	}
	return examine(ctx, r, before, added)
}

// examine runs the migrations in a server of their own.
func examine(ctx context.Context, r Request, before, added []additive.Migration) (findings []additive.Finding, err error) {
	r.Note(fmt.Sprintf("trying %d migrations on what release %s has", len(added), r.Previous.GetVersion()))
	binaries, err := pgserver.Find(ctx, pgserver.Options{Progress: r.Note})
	if err != nil {
		return nil, err
	}
	base, err := pgserver.DirFor(os.TempDir(), "")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base, "a3-release-")
	if err != nil {
		return nil, err
	}
	// Whoever runs the server, which is not root, walks through.
	const walkable = 0o711
	err = os.Chmod(dir, walkable)
	var server *pgserver.Server
	if err == nil {
		server, err = pgserver.New(pgserver.Config{Dir: filepath.Join(dir, "server"), Binaries: binaries, Throwaway: true})
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		const most = 30 * time.Second
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
		defer cancel()
		err = errors.Join(err, server.Remove(ctx), os.RemoveAll(dir))
	}()
	if err := errors.Join(server.Init(ctx), server.Start(ctx)); err != nil {
		return nil, fmt.Errorf("start a PostgreSQL to try the migrations in: %w", err)
	}
	url, err := server.URL("postgres")
	if err != nil {
		return nil, err
	}
	return additive.Check(ctx, url, before, added)
}
