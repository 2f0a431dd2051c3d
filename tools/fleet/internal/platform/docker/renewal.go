package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"a3os.app/libs/pg"
	"a3os.app/tools/fleet/internal/container"
	"a3os.app/tools/fleet/internal/image"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/local"
)

// A server's container is described otherwise whenever the machine's PostgreSQL, a library of it or fleet itself was updated, and to have it so ends
// every session there. So that is done where sets are started, and by nobody who came for one set of those that share the server.

// take has a server serve as it runs, whatever it was made of; one that doesn't run is made and kept as serve does.
func (p *Platform) take(ctx context.Context, s *server) (changed bool, err error) {
	runs, err := p.Engine.Running(ctx, s.unit)
	if err != nil {
		return false, err
	}
	if !runs {
		return p.serve(ctx, s)
	}
	return false, p.awaitServer(ctx, s)
}

// leaves says whether a server that is to be made anew stays as it runs this time: a backup is read from it, which may have taken hours already.
func (p *Platform) leaves(ctx context.Context, s *server, u container.Unit) (bool, error) {
	otherwise, err := p.Engine.Otherwise(ctx, u)
	if err != nil || !otherwise || !p.isRead(ctx, s) {
		return false, err
	}
	if p.Note != nil {
		p.Note(s.unit + " runs as it was before the machine or fleet was updated, and a backup is being read from it: fleet plane up has it started anew once that has ended")
	}
	return true, nil
}

// isRead says whether anybody reads a set's whole database there. One that can't be asked nobody reads from.
func (p *Platform) isRead(ctx context.Context, s *server) bool {
	const most = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	text, err := s.URL("postgres")
	if err != nil {
		return false
	}
	conn, err := pg.Connect(ctx, text)
	if err != nil {
		return false
	}
	defer conn.Close(context.WithoutCancel(ctx))
	readers := []string{local.RealRole(p.Own, local.ReaderRole)}
	for _, t := range p.State.Tenants() {
		if !t.ID.IsZero() {
			readers = append(readers, local.RealRole(platform.Set{Tenant: t.ID}, local.ReaderRole))
		}
	}
	var read bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = ANY($1))", readers).Scan(&read)
	return err == nil && read
}

// backAmongTenants puts a server that tenants call in their own networks into each of them that it isn't in.
func (p *Platform) backAmongTenants(ctx context.Context, s *server) (changed bool, err error) {
	if s.unit != databasesUnit && s.unit != sampleUnit {
		return false, nil
	}
	return p.backInto(ctx, s.unit, s.member)
}

// serverFiles are what an image of PostgreSQL is made of, and the key by which it is known.
type serverFiles struct {
	spec image.Spec
	key  string
}

// serverImages begins the keys of PostgreSQL's images.
const serverImages = "postgresql-"

// serverKey knows an image by the files that go into it: those of the server, of its libraries and of the time zones are mended by the machine's
// updates under one and the same version.
func serverKey(s image.Spec) (string, error) {
	files, err := s.Standing()
	if err != nil {
		return "", fmt.Errorf("look at the files of PostgreSQL: %w", err)
	}
	return serverImages + files, nil
}

// filesOfServers finds them, again where one of them is another than it was: an update may bring a file more.
func (p *Platform) filesOfServers(ctx context.Context) (*serverFiles, error) {
	if was := p.serverFiles.Load(); was != nil {
		if key, err := serverKey(was.spec); err == nil && key == was.key {
			return was, nil
		}
	}
	spec, err := image.Postgres(ctx, p.Binaries)
	if err != nil {
		return nil, err
	}
	key, err := serverKey(spec)
	if err != nil {
		return nil, err
	}
	is := &serverFiles{spec: spec, key: key}
	p.serverFiles.Store(is)
	return is, nil
}

// postgresImage is the image of the machine's PostgreSQL.
func (p *Platform) postgresImage(ctx context.Context) (id string, changed bool, err error) {
	is, err := p.filesOfServers(ctx)
	if err != nil {
		return "", false, err
	}
	return p.imageOf(ctx, is.key, "postgresql", p.Binaries.Version, func() (image.Spec, error) { return is.spec, nil })
}

// Behind are the units of the database servers that run from files of PostgreSQL, its libraries or the time zones which this machine has
// written anew since, sorted.
func (p *Platform) Behind(ctx context.Context) ([]string, error) {
	is, err := p.filesOfServers(ctx)
	if err != nil {
		return nil, err
	}
	images, err := p.Engine.Images(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for unit, id := range images {
		if (unit == databasesUnit || unit == sampleUnit || strings.HasSuffix(unit, "/"+postgresComponent)) && id != p.State.Images()[is.key] {
			out = append(out, unit)
		}
	}
	slices.Sort(out)
	return out, nil
}

// forgetOldServers takes the images of PostgreSQL away that no container is made from any more: each update of a library leaves one, of the size of
// a PostgreSQL.
func (p *Platform) forgetOldServers(ctx context.Context) error {
	is, err := p.filesOfServers(ctx)
	if err != nil {
		return err
	}
	used, err := p.Engine.Images(ctx)
	if err != nil {
		return err
	}
	all := p.State.Images()
	for key, id := range all {
		if !strings.HasPrefix(key, serverImages) || key == is.key {
			continue
		}
		if id != all[is.key] {
			if slices.Contains(slices.Collect(maps.Values(used)), id) {
				continue
			}
			if err := p.Engine.Forget(ctx, id); err != nil {
				return fmt.Errorf("remove an image of PostgreSQL that nothing runs from: %w", err)
			}
			if err := os.Remove(p.Bill(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := p.State.ForgetImage(key); err != nil {
			return err
		}
	}
	return nil
}
