package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"a3os.app/tools/fleet/internal/platform"
)

// Walls says, a sentence each, how containers are kept apart, and what isn't.
func (p *Platform) Walls(ctx context.Context) []string {
	out := []string{"Each component is a container: read-only, without capabilities or new privileges, under the engine's seccomp filter, bounded in memory, CPU and processes."}
	if ids := slices.Sorted(maps.Values(p.State.Accounts())); len(ids) > 0 {
		out = append(out, fmt.Sprintf("Each runs as a user of its own, of the ids %d to %d, which are nobody's.", ids[0], ids[len(ids)-1]))
	}
	if p.Rules().Standing(ctx) {
		out = append(out, fmt.Sprintf("Each tenant has a network of its own in %s; the packet filter (chains A3-%s-IN and -FWD) keeps it from the machine, from private networks and from every other one.", p.Settings.Networks, p.State.ID))
	} else {
		out = append(out, "The plane's packet filter is not in force: containers may reach what the machine listens on. The supervisor brings it back within a minute, where it can.")
	}
	for _, n := range p.Settings.Outside {
		out = append(out, fmt.Sprintf("A3_OUTSIDE_NETWORKS lets every tenant's discovery reach %s.", n))
	}
	return append(out, "All containers share this machine's kernel and its Docker engine: whoever may speak to the engine is root here. A tenant sees none of this machine; nothing of it can be discovered.")
}

// Guard has the plane's packet filter be in force, and answers ErrOpened where somebody else than the plane had taken it out of force.
func (p *Platform) Guard(ctx context.Context) error {
	for {
		rules := p.Rules()
		if len(p.State.Subnets()) == 0 {
			return nil // nothing stands behind it yet
		}
		_, opened, err := p.enforce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = p.State.Reload()
		}
		switch {
		case err == nil && !reflect.DeepEqual(p.Rules(), rules):
			// Somebody made or gave up a network meanwhile, and this has written the rules of before over those.
			continue
		case err != nil:
			return errors.Join(err, p.noteOpening(platform.Opening{At: time.Now().UTC(), Failure: err.Error()}))
		case opened:
			return ErrOpened
		}
		return p.noteClosed()
	}
}

// enforce has the packet filter be in force. Where it had been made by these very rules since the machine started, and wasn't as they have it,
// somebody else changed it, which is kept in mind.
func (p *Platform) enforce(ctx context.Context) (changed, opened bool, err error) {
	rules := p.Rules()
	if changed, err = rules.Apply(ctx); err != nil {
		return changed, false, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return changed, false, fmt.Errorf("ask which start of the machine this is: %w", err)
	}
	stands, err := json.Marshal(map[string]any{"boot": string(boot), "rules": rules})
	if err != nil {
		return changed, false, err
	}
	stood, err := os.ReadFile(p.standsFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return changed, false, err
	}
	if !bytes.Equal(stood, stands) {
		return changed, false, renameio.WriteFile(p.standsFile(), stands, 0o600)
	}
	if changed {
		err = p.noteOpening(platform.Opening{At: time.Now().UTC()})
	}
	return changed, changed, err
}

// ErrOpened is of walls that somebody else than the plane had taken down, and that stand again.
var ErrOpened = errors.New("the packet filter that keeps tenants' networks apart was changed by somebody else than the plane, and was put back: see docs/operations.md#walls-were-opened")

func (p *Platform) standsFile() string { return filepath.Join(p.Settings.Home, "walls-stand.json") }

func (p *Platform) openingFile() string { return filepath.Join(p.Settings.Home, "walls-opened.json") }

func (p *Platform) noteOpening(o platform.Opening) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return renameio.WriteFile(p.openingFile(), text, 0o600)
}

// noteClosed ends what could not be closed before.
func (p *Platform) noteClosed() error {
	o, err := p.Opened()
	if err != nil || o.Failure == "" {
		return err
	}
	o.Failure = ""
	return p.noteOpening(o)
}

// Opened implements platform.Guarded.
func (p *Platform) Opened() (o platform.Opening, err error) {
	text, err := os.ReadFile(p.openingFile())
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		return o, fmt.Errorf("read when walls were found open: %w", err)
	}
	return o, nil
}
