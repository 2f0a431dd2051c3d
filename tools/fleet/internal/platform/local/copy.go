package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	neturl "net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/blob"
	"a3os.app/libs/config"
	"a3os.app/libs/fault"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"
	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform"
)

// ErrNotCopied is of a backup that was tried out well, and of which no other tenant's could be made.
var ErrNotCopied = errors.New("the backup is whole, and the copy could not be made")

// Copy tries a backup of one tenant's set out as RehearseToRestore does, and makes in the throwaway server a backup of another tenant's set of
// it, which is restored as any other: under that tenant's own keys, logins and log. Neither set is touched. What is sealed to the first tenant, or signed by it,
// stays behind, as the blueprint says, and so does every secret store. The backup is unlocked, and the caller
// holds the lock of to's backups.
func (p *Platform) Copy(ctx context.Context, of, to platform.Set, with platform.Release, b *backup.Backup) (m *backup.Manifest, r Rehearsal, err error) {
	if of.Blueprint.Backup.Copied == nil {
		return nil, r, fault.New(fault.Unimplemented, "the blueprint %s does not say what of a set may become another tenant's", of.Blueprint.Name)
	}
	key, err := p.BackupKey(to)
	if err != nil {
		return nil, r, err
	}
	if err := p.KeepBackupsHere(); err != nil {
		return nil, r, err
	}
	m = &backup.Manifest{TakenAt: b.Manifest.TakenAt, Release: b.Manifest.Release, Copied: &backup.Copied{Set: of.Name(), Slug: of.Slug, Backup: b.Manifest.Name}}
	r, err = p.rehearse(ctx, of, with, b, true, func(t trial) (err error) {
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrNotCopied, err)
			}
		}()
		stores := filepath.Join(t.dir, partStores)
		if err := p.giveStores(of, to, stores); err != nil {
			return fmt.Errorf("make the stores those of %s: %w", to.Name(), err)
		}
		if err := p.giveDatabase(ctx, t, of, to, b.Manifest); err != nil {
			return fmt.Errorf("make the database that of %s: %w", to.Name(), err)
		}
		pack := func(tree *backup.Tree) error {
			for _, name := range slices.Sorted(maps.Keys(of.Blueprint.Stores)) {
				if err := tree.Dir(ctx, name, filepath.Join(stores, name), unwritten); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return nil
		}
		url, err := renamed(t.urls[ownerRole], realRole(to, ownerRole))
		if err != nil {
			return err
		}
		return p.makeBackup(ctx, to, m, key, source{url: url, stores: pack})
	})
	return m, r, err
}

// giveStores makes stores that were unpacked another tenant's.
func (p *Platform) giveStores(of, to platform.Set, dir string) error {
	signer, err := p.signer()
	if err != nil {
		return err
	}
	for name, store := range of.Blueprint.Stores {
		had, gets := filepath.Join(dir, name), filepath.Join(dir, name+".given")
		if store.Kind != blueprint.StoreBlob {
			if err := os.RemoveAll(had); err != nil {
				return err
			}
			continue
		}
		was, is := blob.Space(of.Tenant), blob.Space(to.Tenant)
		if _, err := os.Lstat(filepath.Join(had, was)); errors.Is(err, fs.ErrNotExist) {
			if p.storesElsewhere(of) != nil {
				continue // keys of a store that is no directory name no tenant
			}
		} else if err != nil {
			return err
		}
		if _, err := blob.CreateLocal(gets, signer, to.Tenant); err != nil {
			return err
		}
		err := os.MkdirAll(filepath.Join(gets, filepath.Dir(is)), 0o700)
		if err == nil {
			err = os.Rename(filepath.Join(had, was), filepath.Join(gets, is))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := errors.Join(os.RemoveAll(had), os.Rename(gets, had)); err != nil {
			return err
		}
	}
	return nil
}

// giveDatabase makes a database that was restored on a server of its own another tenant's: what the blueprint says stays behind, the log goes on under
// the other's key, and its logins are the other's. It is done as the database's owner, who sees every row here: what a tenant put into its database is run by no superuser.
func (p *Platform) giveDatabase(ctx context.Context, t trial, of, to platform.Set, m *backup.Manifest) error {
	admin, err := t.server.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if _, err := admin.Exec(ctx, "ALTER ROLE "+quoted(realRole(of, ownerRole))+" BYPASSRLS"); err != nil {
		return err
	}
	if err := p.leaveBehind(ctx, t, of, to, m); err != nil {
		return err
	}
	for _, role := range append(slices.Sorted(maps.Keys(of.Blueprint.Database.Roles)), ownerRole, readerRole) {
		if _, err := admin.Exec(ctx, "ALTER ROLE "+quoted(realRole(of, role))+" RENAME TO "+quoted(realRole(to, role))); err != nil {
			return fmt.Errorf("make the login %s: %w", realRole(to, role), err)
		}
	}
	return nil
}

// renamed is a connection string under another login's name.
func renamed(url config.Secret, login string) (config.Secret, error) {
	u, err := neturl.Parse(url.Reveal())
	if err != nil || u.User == nil {
		return config.Secret{}, errors.New("the connection string of the throwaway server's owner is not a URL")
	}
	password, _ := u.User.Password()
	u.User = neturl.UserPassword(login, password)
	return config.NewSecret(u.String()), nil
}

// leaveBehind takes out of the database what is the other tenant's alone.
func (p *Platform) leaveBehind(ctx context.Context, t trial, of, to platform.Set, m *backup.Manifest) error {
	conn, err := pg.Connect(ctx, t.urls[ownerRole].Reveal())
	if err != nil {
		return errors.New("connect as the database's owner to the server that the backup is tried out in") // the driver repeats the password
	}
	defer conn.Close(context.WithoutCancel(ctx))
	copied := of.Blueprint.Backup.Copied
	for _, table := range copied.Empty {
		if err := empty(ctx, conn, table); err != nil {
			return fmt.Errorf("empty %s: %w", table, err)
		}
	}
	for _, statement := range copied.Statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	if m.Checkpoint != "" {
		if err := p.signAgain(ctx, conn, of, to, m.Checkpoint, filepath.Join(t.dir, partFiles, "keys")); err != nil {
			return fmt.Errorf("sign the log's checkpoint: %w", err)
		}
	}
	if queue := of.Blueprint.Database.Queue; queue != "" {
		// The mark on it is the other tenant's, and comes along with the schema; that on the database doesn't.
		if _, err := conn.Exec(ctx, "COMMENT ON SCHEMA "+quoted(queue)+" IS NULL"); err != nil {
			return err
		}
	}
	return nil
}

// empty deletes a table's rows, whatever its triggers say of that. One that there isn't has none: a queue has other tables where it is elsewhere.
func empty(ctx context.Context, conn *pgx.Conn, table string) error {
	name := pgx.Identifier(strings.Split(table, ".")).Sanitize()
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&there); err != nil || !there {
		return err
	}
	rows, err := conn.Query(ctx, `SELECT tgname::text, CASE tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE' END
		FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgenabled <> 'D'`, name)
	if err != nil {
		return err
	}
	type trigger struct{ name, enable string }
	triggers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t trigger, err error) { return t, row.Scan(&t.name, &t.enable) })
	if err != nil {
		return err
	}
	statements := []string{"ALTER TABLE " + name + " DISABLE TRIGGER USER", "DELETE FROM " + name}
	for _, t := range triggers {
		statements = append(statements, "ALTER TABLE "+name+" "+t.enable+" TRIGGER "+quoted(t.name))
	}
	return batch(ctx, conn, statements...)
}

// signAgain has the log of a copy go on from where the log was that it was made of: the same tree, signed with the other tenant's key. The signature that was
// there is verified first, with the key of the backup.
func (p *Platform) signAgain(ctx context.Context, conn *pgx.Conn, of, to platform.Set, checkpoint, keys string) error {
	copied := of.Blueprint.Backup.Copied
	public, err := os.ReadFile(filepath.Join(keys, copied.LogKey+".public"))
	if err != nil {
		return err
	}
	verifier, err := tlog.NewVerifier(strings.TrimSpace(string(public)))
	if err != nil {
		return err
	}
	was, err := verifier.Open(checkpoint)
	if err != nil {
		return err
	}
	secret, err := p.secretFile(p.keyFile(to, copied.LogKey))
	if err != nil {
		return err
	}
	signer, err := tlog.NewSigner(secret.Reveal())
	if err != nil {
		return err
	}
	is, err := signer.Sign(was.Size, was.Root)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, copied.Checkpoint, int64(is.Size), is.Root, is.Note) //nolint:gosec // G115: no log has 2⁶³ entries
	return err
}
