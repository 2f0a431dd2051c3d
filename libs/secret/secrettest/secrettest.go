// Package secrettest is what every driver of package secret must pass.
package secrettest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/secret"
)

// Store is one tenant's store, opened by both sides.
type Store struct {
	Tenant id.Tenant
	Writer secret.Writer
	Reader secret.Reader
}

const canary = "c4nary-51d0"

// Run runs the suite; open makes an empty store of a tenant that is new.
func Run(t *testing.T, open func(*testing.T) Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"WhatIsPutIsRead":                  putIsRead,
		"VersionsGrow":                     versionsGrow,
		"DeletedIsGoneAndDeletingIsSafe":   deleted,
		"OthersPathsAreRefused":            othersPaths,
		"IncompletePathIsRefused":          incompletePath,
		"ValuesThatCantBeStoredAreRefused": badValues,
		"PathsDoNotMix":                    pathsDoNotMix,
		"ParallelPutsLeaveOneWhole":        parallelPuts,
		"CancelledCallDoesNothing":         cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// PathOf is a new path of a tenant.
func PathOf(tenant id.Tenant) secret.Path {
	return secret.Path{Tenant: tenant, Workspace: id.NewWorkspace(), Integration: id.NewIntegration()}
}

func putIsRead(t *testing.T, s Store) {
	for _, value := range []string{canary, "\x00\xff\n", strings.Repeat("k", secret.MostBytes)} {
		p := PathOf(s.Tenant)
		must(t, s.Writer.Put(t.Context(), p, config.NewSecret(value)))
		got, version, err := s.Reader.Get(t.Context(), p)
		must(t, err)
		if got.Reveal() != value || version <= 0 {
			t.Errorf("read %d bytes in version %d, wrote %d bytes", len(got.Reveal()), version, len(value))
		}
	}
}

func versionsGrow(t *testing.T, s Store) {
	p, last := PathOf(s.Tenant), int64(0)
	for i := range 5 {
		if i == 3 {
			must(t, s.Writer.Delete(t.Context(), p))
		}
		value := config.NewSecret(fmt.Sprint("value ", i))
		must(t, s.Writer.Put(t.Context(), p, value))
		got, version, err := s.Reader.Get(t.Context(), p)
		must(t, err)
		if version <= last || got.Reveal() != value.Reveal() {
			t.Errorf("put %d has version %d after %d", i, version, last)
		}
		last = version
	}
}

func deleted(t *testing.T, s Store) {
	p := PathOf(s.Tenant)
	must(t, s.Writer.Delete(t.Context(), p))
	must(t, s.Writer.Put(t.Context(), p, config.NewSecret(canary)))
	must(t, s.Writer.Delete(t.Context(), p))
	must(t, s.Writer.Delete(t.Context(), p))
	if _, _, err := s.Reader.Get(t.Context(), p); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("reading what was deleted: %v", err)
	}
}

func othersPaths(t *testing.T, s Store) {
	refusedEverywhere(t, s, PathOf(id.NewTenant()), secret.ErrForeign)
}

func incompletePath(t *testing.T, s Store) {
	full := PathOf(s.Tenant)
	for _, p := range []secret.Path{
		{}, {Workspace: full.Workspace, Integration: full.Integration},
		{Tenant: full.Tenant, Integration: full.Integration}, {Tenant: full.Tenant, Workspace: full.Workspace},
	} {
		refusedEverywhere(t, s, p, secret.ErrInvalid)
	}
}

func refusedEverywhere(t *testing.T, s Store, p secret.Path, want error) {
	t.Helper()
	_, _, getErr := s.Reader.Get(t.Context(), p)
	for what, err := range map[string]error{
		"put": s.Writer.Put(t.Context(), p, config.NewSecret(canary)), "delete": s.Writer.Delete(t.Context(), p), "get": getErr,
	} {
		if !errors.Is(err, want) {
			t.Errorf("%s at %s: %v", what, p, err)
		}
		noCanary(t, err)
	}
}

func badValues(t *testing.T, s Store) {
	p := PathOf(s.Tenant)
	for _, value := range []string{"", canary + strings.Repeat("x", secret.MostBytes)} {
		err := s.Writer.Put(t.Context(), p, config.NewSecret(value))
		if !errors.Is(err, secret.ErrInvalid) {
			t.Errorf("%d bytes: %v", len(value), err)
		}
		noCanary(t, err)
	}
	if _, _, err := s.Reader.Get(t.Context(), p); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("a refused value left something: %v", err)
	}
}

func pathsDoNotMix(t *testing.T, s Store) {
	a := PathOf(s.Tenant)
	b, c := a, a
	b.Workspace = id.NewWorkspace()
	c.Integration = id.NewIntegration()
	must(t, s.Writer.Put(t.Context(), a, config.NewSecret("a")))
	must(t, s.Writer.Put(t.Context(), b, config.NewSecret("b")))
	if got, _, err := s.Reader.Get(t.Context(), a); err != nil || got.Reveal() != "a" {
		t.Errorf("first path: %q, %v", got.Reveal(), err)
	}
	if _, _, err := s.Reader.Get(t.Context(), c); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("a path that nobody wrote: %v", err)
	}
}

func parallelPuts(t *testing.T, s Store) {
	p := PathOf(s.Tenant)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := s.Writer.Put(t.Context(), p, config.NewSecret(strings.Repeat(string(rune('a'+i)), 1000))); err != nil {
				t.Error(err)
			}
			got, _, err := s.Reader.Get(t.Context(), p)
			if err != nil || got.Reveal() != strings.Repeat(got.Reveal()[:1], 1000) {
				t.Errorf("read while others write: %v", err)
			}
		})
	}
	wg.Wait()
}

func cancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := PathOf(s.Tenant)
	if err := s.Writer.Put(ctx, p, config.NewSecret(canary)); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if _, _, err := s.Reader.Get(t.Context(), p); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("a cancelled put left something: %v", err)
	}
}

func noCanary(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
		t.Errorf("error holds the value: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
