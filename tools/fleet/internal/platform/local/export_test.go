package local_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
)

// A tenant's set is stopped before what is theirs is taken: also one whose database server is its own, which is started for that alone, and what
// was begun to be written to a store and never was is nobody's.
func TestSetIsExportedOnceItIsStopped(t *testing.T) {
	p, b := machine(t), tiny(t)
	b.Stores = map[string]blueprint.Store{"files": {Kind: blueprint.StoreBlob}}
	for tier, slug := range map[registryv1.IsolationTier]string{
		registryv1.IsolationTier_ISOLATION_TIER_DATABASE: "shared", registryv1.IsolationTier_ISOLATION_TIER_DEDICATED: "alone",
	} {
		set := platform.Set{Blueprint: b, Tenant: id.NewTenant(), Slug: slug, Tier: tier}
		carryOut(t, p, set)
		for name, text := range map[string]string{"objects/report": "whole", "tmp/half": "ha", "objects/tmp": "an object of this name"} {
			file := filepath.Join(p.Files(set).Store("files"), filepath.FromSlash(name))
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Stop(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "export")
		if changed, err := p.Export(t.Context(), set, dir); err != nil || !changed {
			t.Fatalf("%s: exporting it: %v %v", slug, changed, err)
		}
		if dump, err := os.ReadFile(filepath.Join(dir, "database.sql")); err != nil || !bytes.Contains(dump, []byte("PostgreSQL database dump complete")) {
			t.Errorf("%s: its database is not exported whole: %v", slug, err)
		}
		for name, there := range map[string]bool{"objects/report": true, "objects/tmp": true, "tmp": false} {
			if _, err := os.Stat(filepath.Join(dir, "stores", "files", filepath.FromSlash(name))); errors.Is(err, fs.ErrNotExist) == there {
				t.Errorf("%s: of the store, %s: %v", slug, name, err)
			}
		}
		if running, err := p.Components(t.Context(), set); err != nil || len(running) > 0 {
			t.Errorf("%s: exported, %v runs (%v)", slug, running, err)
		}
	}
}
