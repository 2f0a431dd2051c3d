package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/binding"
	"a3os.app/libs/config"
	"a3os.app/tools/fleet/internal/platform"
)

// ownKey is the name of the plane's own key of a kind.
func (p *Platform) ownKey(kind blueprint.KeyKind) (string, error) {
	if p.Own.Blueprint != nil {
		for _, name := range slices.Sorted(maps.Keys(p.Own.Blueprint.Keys)) {
			if p.Own.Blueprint.Keys[name].Kind == kind {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("the plane's blueprint has no key of kind %s", kind)
}

// markKeys are what services verify marks with.
func (p *Platform) markKeys() (string, error) {
	name, err := p.ownKey(blueprint.KeyMark)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(p.publicFile(p.Own, name))
	if err != nil {
		return "", fmt.Errorf("read the key that marks are verified with: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// signer signs marks. Only this program reads the key.
func (p *Platform) signer() (*binding.Signer, error) {
	name, err := p.ownKey(blueprint.KeyMark)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(p.keyFile(p.Own, name))
	if err != nil {
		return nil, fmt.Errorf("read the key that signs marks: %w", err)
	}
	return binding.NewSigner(p.State.Plane, config.NewSecret(strings.TrimSpace(string(text))))
}

// Mark implements platform.Platform. What carries the set's mark already is left alone, as an earlier plane's of the same tenant gives
// way to it; what carries another's is refused.
func (p *Platform) Mark(ctx context.Context, s platform.Set) (changed bool, err error) {
	d := s.Blueprint.Database
	if d == nil {
		return false, nil
	}
	signer, err := p.signer()
	if err != nil {
		return false, err
	}
	name := databaseName(s)
	conn, err := p.connect(ctx, s, name)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	changed, err = putMark(ctx, conn, signer, "DATABASE "+pgx.Identifier{name}.Sanitize(), databaseComment,
		binding.Mark{Tenant: s.Tenant, Kind: binding.Database, Name: name})
	if err != nil || d.Queue == "" {
		return changed, err
	}
	did, err := putMark(ctx, conn, signer, "SCHEMA "+pgx.Identifier{d.Queue}.Sanitize(),
		"SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = "+literal(d.Queue),
		binding.Mark{Tenant: s.Tenant, Kind: binding.Queue, Name: name + "/" + d.Queue})
	return changed || did, err
}

// databaseComment is where a database keeps its mark.
const databaseComment = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = current_database()"

// DatabaseMark is the mark on a set's database, as it stands there.
func (p *Platform) DatabaseMark(ctx context.Context, s platform.Set) (mark string, err error) {
	rest, err := p.awake(ctx, s)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rest()) }()
	conn, err := p.connect(ctx, s, databaseName(s))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, databaseComment).Scan(&mark); err != nil {
		return "", fmt.Errorf("read the mark of the database of %s: %w", s.Name(), err)
	}
	return mark, nil
}

// putMark marks an object of a database.
func putMark(ctx context.Context, conn *pgx.Conn, signer *binding.Signer, object, read string, m binding.Mark) (changed bool, err error) {
	var found string
	if err := conn.QueryRow(ctx, read).Scan(&found); err != nil {
		return false, fmt.Errorf("read the mark of %s: %w", object, err)
	}
	text, err := signer.Sign(m)
	if err != nil || found == text {
		return false, err
	}
	if err := notAnothers(object, found, m); err != nil {
		return false, err
	}
	if _, err := conn.Exec(ctx, "COMMENT ON "+object+" IS "+literal(text)); err != nil {
		return false, fmt.Errorf("mark %s: %w", object, err)
	}
	return true, nil
}

// notAnothers refuses what carries a mark of somebody else than m's tenant, or a text that is no mark at all.
func notAnothers(object, found string, m binding.Mark) error {
	if found == "" {
		return nil
	}
	have, err := binding.Claimed(found)
	if err != nil {
		return fmt.Errorf("%s carries a comment that is no mark of a plane: it is somebody else's", object)
	}
	if have.Tenant != m.Tenant {
		return fmt.Errorf("%s carries the mark of %q and not of %q: it is somebody else's", object, have.Tenant, m.Tenant)
	}
	return nil
}
