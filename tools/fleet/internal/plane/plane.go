// Package plane brings a plane of this machine up and down and makes its tenants. It promises that every command can be repeated and
// resumed: each step looks whether there is something to do, and what is as it should be is left alone.
package plane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/pgserver"
	"a3os.app/tools/fleet/internal/accounts"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws"
	"a3os.app/tools/fleet/internal/platform/docker"
	"a3os.app/tools/fleet/internal/platform/local"
	"a3os.app/tools/fleet/internal/settings"
	"a3os.app/tools/fleet/internal/state"
	"a3os.app/tools/fleet/internal/supervise"
)

// Plane is a plane of this machine.
type Plane struct {
	// Settings it was opened with.
	Settings settings.Settings
	// Program is what tenants' sets run, Control what the plane's own services do, and Self the program that supervises.
	Program, Control, Self string

	// platform keeps the plane's files, and on this machine's processes carries the sets out; docker does that on a plane of containers, aws with
	// tenants' sets on one whose tenants are at AWS.
	platform   *local.Platform
	docker     *docker.Platform
	aws        *aws.Platform
	state      *state.State
	supervisor *supervise.Client
	report     Reporter
	blueprint  *blueprint.Blueprint
	own        platform.Set
	locker
	// newcomers are Newcomers'.
	newcomers []string
	// resting are tenants whose sets this command found to be stopped, or on the way to it, and left so.
	resting []string
	// unseen are tenants that are in use and whose admins aren't signed in here.
	unseen []string
	// release is what sets are to run, controls what the plane's own services do: what was built here.
	release, controls platform.Release
}

// New makes a plane of what the settings say; nothing is touched.
func New(s settings.Settings, report Reporter) (*Plane, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	control, err := blueprint.Plane()
	if err != nil {
		return nil, err
	}
	p := &Plane{Settings: s, Control: filepath.Join(filepath.Dir(self), control.Artefact), Self: self, supervisor: supervise.NewClient(RunDir(s.Home)),
		report: report, own: platform.Set{Blueprint: control}}
	return p, p.useOwnProduct()
}

// RunDir is the supervisor's directory of a home.
func RunDir(home string) supervise.Dir { return supervise.Dir(filepath.Join(home, "run")) }

// Programs are how the plane's supervisor and its watcher are started.
func (p *Plane) Programs() supervise.Programs {
	return supervise.Programs{
		Supervisor: []string{p.Self, "plane", "supervise", "--home", p.Settings.Home},
		Watcher:    []string{p.Self, "plane", "watch", "--home", p.Settings.Home},
		Log:        filepath.Join(p.Settings.Home, "log", "plane", "supervisor.log"),
	}
}

// Reporter is told what a command does.
type Reporter interface {
	// Done is a step that changed something.
	Done(step string, took time.Duration)
	// Note is something worth knowing.
	Note(text string)
}

// lock makes this the one command that changes the plane.
func (p *Plane) lock(ctx context.Context) (unlock func(), err error) {
	if err := p.makeHome(); err != nil {
		return nil, fmt.Errorf("make the plane's home: %w", err)
	}
	l := flock.New(filepath.Join(p.Settings.Home, "fleet.lock"), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if errors.Is(err, fs.ErrPermission) {
		return nil, p.isAnothers()
	}
	if err != nil {
		return nil, fmt.Errorf("lock the plane: %w", err)
	}
	if !ok {
		p.report.Note("another command changes this plane: waiting for it")
		if _, err = l.TryLockContext(ctx, 100*time.Millisecond); err != nil {
			return nil, fmt.Errorf("wait for another command that changes this plane: %w", err)
		}
	}
	return func() { _ = l.Close() }, nil
}

// anothers refuses to work on a plane whose state this user may not read.
func (p *Plane) anothers() error {
	f, err := os.Open(filepath.Join(p.Settings.Home, "plane.json"))
	if err == nil {
		_ = f.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return p.isAnothers()
	}
	return nil
}

func (p *Plane) isAnothers() error {
	return fmt.Errorf("the plane in %s is another user's: work as that user, or choose another place with A3_HOME", p.Settings.Home)
}

// makeHome makes the home. Where processes have users of their own they walk through it to what is theirs; an existing one keeps its
// mode, by which it was decided where data lie.
func (p *Plane) makeHome() error {
	if info, err := os.Stat(p.Settings.Home); err == nil {
		return p.rootsOwn(info)
	}
	mode := os.FileMode(0o700)
	if accounts.Possible() == "" {
		mode = 0o711
	}
	return errors.Join(os.MkdirAll(p.Settings.Home, mode), os.Chmod(p.Settings.Home, mode))
}

// rootsOwn refuses to work as root in a home that isn't root's: whoever owns it can exchange what root reads and runs from there.
func (p *Plane) rootsOwn(home os.FileInfo) error {
	st, ok := home.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	return fmt.Errorf("%s belongs to the user with the id %d, who could exchange what root reads and runs from there: work as that user",
		p.Settings.Home, st.Uid)
}

// openState reads the plane's state.
func (p *Plane) openState() error {
	var err error
	if p.state, err = state.Open(p.Settings.Home); err != nil {
		return err
	}
	if err := p.chooseProduct(); err != nil {
		return err
	}
	return p.usePlatform()
}

// usePlatform takes the platform that carries the plane's sets out.
func (p *Plane) usePlatform() error {
	if err := p.sealed(); err != nil {
		return err
	}
	local.RememberDigests(p.Settings.Home)
	p.platform = &local.Platform{Settings: p.Settings, State: p.state, Own: p.own, Supervisor: p.supervisor, Programs: []string{p.Control, p.Program}, Now: time.Now}
	return p.choosePlatform()
}

// prod is the plane of customers: what changes a tenant of it is planned, and a second person says yes.
const prod = "prod"

// sealed takes a new plane to be what the settings name, and refuses another name for one that there is: its authorities, keys and
// databases say what it is, and nothing of it may pass for the other's.
func (p *Plane) sealed() error {
	wanted := p.Settings.Plane
	switch {
	case wanted == "" || wanted == p.state.Plane:
	case state.Exists(p.Settings.Home):
		return fmt.Errorf("the plane in %s is %s and A3_PLANE is %s: planes are sealed, and one stays what it was made as; make another with A3_HOME", p.Settings.Home, p.state.Plane, wanted)
	default:
		p.state.Plane = wanted
	}
	return nil
}

// forgetTaken gives up the ports that somebody else listens on by now. Those of a plane that runs are all taken, by itself.
func (p *Plane) forgetTaken() error {
	if daemon, err := RunDir(p.Settings.Home).Daemon(); err == nil && daemon.Alive() {
		return fmt.Errorf("the plane's supervisor, process %d, runs and does not answer at %s: end that process, and make up brings everything back", daemon.PID, RunDir(p.Settings.Home).Socket())
	}
	return p.state.ForgetTaken()
}

// open reads the plane's state and finds what it is made of.
func (p *Plane) open(ctx context.Context) error {
	if err := p.openState(); err != nil {
		return err
	}
	switch err := p.supervisor.Ping(ctx); {
	case errors.Is(err, supervise.ErrNotRunning):
		if err := p.forgetTaken(); err != nil {
			return err
		}
	case err != nil: // It runs, for all that is known: who was interrupted takes nothing from it.
		return err
	case p.supervisor.Outdated(ctx):
		return errors.New("the plane runs as an earlier release, or another user, started it: make up brings it up to date first")
	}
	if err := p.platform.Settle(ctx); err != nil {
		return err
	}
	var binaries pgserver.Binaries
	looking, lctx := errgroup.WithContext(ctx)
	looking.Go(func() (err error) {
		binaries, err = p.programs(lctx)
		return err
	})
	looking.Go(func() (err error) {
		if p.release, err = local.Built(p.Program); err != nil {
			return err
		}
		p.controls, err = local.Built(p.Control)
		return err
	})
	if err := looking.Wait(); err != nil {
		return err
	}
	if err := p.useServers(ctx, binaries); err != nil {
		return err
	}
	if err := p.platform.KeepBlueprint(p.blueprint); err != nil {
		return err
	}
	_, err := p.carrier().Fetch(ctx, p.controls)
	if p.another() && err == nil {
		_, err = p.carrier().Fetch(ctx, p.release)
	}
	return err
}

// wantedSpace is the disk space for a plane's first start.
const wantedSpace = 1 << 30

// check refuses what can't work before anything is made.
func (p *Plane) check(ctx context.Context) error {
	if err := p.makeHome(); err != nil {
		return fmt.Errorf("the plane's home can't be made: %w: choose another place with A3_HOME", err)
	}
	if err := p.anothers(); err != nil {
		return err // whose port is taken, by itself
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(p.Settings.Home, &disk); err == nil && !state.Exists(p.Settings.Home) {
		if free := int64(disk.Bavail) * int64(disk.Bsize); free < wantedSpace { //nolint:gosec,unconvert // both are small and positive; their types differ between systems
			return fmt.Errorf("%s has %d MB free and a plane needs %d: free some, or choose another place with A3_HOME", p.Settings.Home, free>>20, wantedSpace>>20)
		}
	}
	return p.checkPort(ctx)
}

// checkPort sees that the gateway's address is free, or the gateway's.
func (p *Plane) checkPort(ctx context.Context) error {
	if p.isAtAWS() {
		return nil // its gateway listens there
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", p.Settings.Address())
	if err == nil {
		return l.Close()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		if p.supervisor.Ping(ctx) == nil && p.frontIsOurs(ctx) {
			return nil
		}
		return fmt.Errorf("port %d on %s is taken: stop what listens there, or choose another, as A3_PORT=%d make up", p.Settings.Port, p.Settings.Listen, p.Settings.Port+1000)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("this user may not listen on port %d: choose one above 1023, as A3_PORT=7443", p.Settings.Port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("A3_LISTEN is %s, which is no address of this machine", p.Settings.Listen)
	}
	return fmt.Errorf("listen on %s: %w", p.Settings.Address(), err)
}

// frontIsOurs says whether the plane's own front door listens on the address that the settings name.
func (p *Plane) frontIsOurs(ctx context.Context) bool {
	if st, err := state.Open(p.Settings.Home); err == nil && st.Platform == docker.Name {
		return p.containersFrontIsOurs(ctx, st)
	}
	all, err := p.supervisor.Status(ctx)
	if err != nil {
		return false
	}
	st, err := state.Open(p.Settings.Home)
	if err != nil || st.Front != p.Settings.Address() {
		return false
	}
	for _, c := range p.own.Blueprint.Components {
		for _, s := range all {
			if c.Needs.FrontDoor && s.Name == p.own.Name()+"/"+c.Name && (s.PID != 0 || s.Listens != "") {
				return true
			}
		}
	}
	return false
}
