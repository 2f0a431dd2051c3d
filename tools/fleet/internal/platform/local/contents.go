package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/blob"
	"a3os.app/libs/config"
	"a3os.app/libs/secret"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
)

// contents are what the stores of a backup have.
type contents struct {
	files, credentials int
	// names by store, as rows name what is kept there.
	names map[string]map[string]bool
}

// storesOpen holds every store of a backup to its manifest and opens every credential with the key that the backup has for it. What they
// say is let go at once.
func storesOpen(s platform.Set, m *backup.Manifest, stores, keys string) (*contents, error) {
	out := &contents{names: map[string]map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(s.Blueprint.Stores)) {
		sums, err := backup.SumsOf(os.DirFS(filepath.Join(stores, name)))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // a store that nothing was ever put into
		}
		if err == nil {
			err = heldTo(m, sums.Contents(name))
		}
		if err == nil {
			err = out.open(s, name, filepath.Join(stores, name), keys, sums)
		}
		if err != nil {
			return nil, fmt.Errorf("look at store %s of the backup: %w", name, err)
		}
	}
	return out, nil
}

// heldTo compares what a store has with what its manifest says, if that is of a release that says it.
func heldTo(m *backup.Manifest, have backup.Contents) error {
	if len(m.Stores) == 0 {
		return nil
	}
	i := slices.IndexFunc(m.Stores, func(c backup.Contents) bool { return c.Store == have.Store })
	switch {
	case i < 0:
		return errors.New("the manifest doesn't say what was in it")
	case m.Stores[i].Files != have.Files:
		return fmt.Errorf("it has %d files after the restore, and had %d", have.Files, m.Stores[i].Files)
	case m.Stores[i] != have:
		return errors.New("its files are not those that were packed")
	}
	return nil
}

func (c *contents) open(s platform.Set, name, dir, keys string, sums backup.Sums) error {
	store := s.Blueprint.Stores[name]
	opener, err := openerOf(store, keys)
	if err != nil {
		return err
	}
	c.names[name] = map[string]bool{}
	for file := range sums {
		c.files++
		if key, is := blob.KeyOf(s.Tenant, file); is && store.Kind == blueprint.StoreBlob {
			c.names[name][key] = true
		}
		at, is := secret.PathOf(file)
		if opener == nil || !is {
			continue
		}
		sealed, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil {
			_, _, err = opener.Open(at, sealed)
		}
		if err != nil {
			return fmt.Errorf("the backup's key doesn't open the credential of %s: %w", at, err)
		}
		c.credentials++
		workspace, integration := pgtype.UUID{Bytes: at.Workspace.Bytes(), Valid: true}, pgtype.UUID{Bytes: at.Integration.Bytes(), Valid: true}
		c.names[name][workspace.String()+"/"+integration.String()] = true
	}
	return nil
}

// named holds what rows of a restored database name in stores to what the stores have: either could have been backed up without the other.
func (c *contents) named(ctx context.Context, server throwaway, s platform.Set) error {
	conn, err := server.connect(ctx, databaseName(s))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, name := range slices.Sorted(maps.Keys(s.Blueprint.Stores)) {
		query := s.Blueprint.Stores[name].Named
		if query == "" {
			continue
		}
		rows, err := conn.Query(ctx, query)
		if err != nil {
			return fmt.Errorf("ask what of store %s rows name: %w", name, err)
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("ask what of store %s rows name: %w", name, err)
		}
		for _, n := range names {
			if !c.names[name][n] {
				return fmt.Errorf("a row names %s in store %s, and the backup doesn't have it", n, name)
			}
		}
	}
	return nil
}

func openerOf(store blueprint.Store, keys string) (*secret.Opener, error) {
	if store.Kind != blueprint.StoreSecret {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(keys, store.Key+".secret"))
	if err != nil {
		return nil, fmt.Errorf("the backup lacks the key of its credentials: %w", err)
	}
	return secret.NewOpener(config.NewSecret(strings.TrimSpace(string(text))))
}
