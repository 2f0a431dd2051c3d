// Package container keeps containers, networks and images on a Docker engine, as a plane describes them. It promises that each call can
// be repeated and changes nothing that is as described; that all it makes carries the plane's label, and that it changes and removes
// nothing without it; and that every container is closed: read-only, without capabilities, without a way to new privileges, under the
// engine's seccomp filter, bounded. What the containers are it learns from its caller.
package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
)

// Labels of everything that is made.
const (
	labelPlane = "app.a3os.plane"
	labelGroup = "app.a3os.group"
	labelName  = "app.a3os.name"
	// labelSpec is the digest of what a thing was made from.
	labelSpec = "app.a3os.spec"
	// labelRelease is what a container's image was made of.
	labelRelease = "app.a3os.release"
)

// Engine is a Docker engine, seen by one plane.
type Engine struct {
	docker *client.Client
	plane  string
}

// Open connects to the engine that DOCKER_HOST names, or the machine's own, for a plane of an id.
func Open(ctx context.Context, plane string) (*Engine, error) {
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("DOCKER_HOST can't be used: %w", err)
	}
	if _, err := docker.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("there is no Docker engine: start dockerd, or say where it is with DOCKER_HOST: %w", err), docker.Close())
	}
	return &Engine{docker: docker, plane: plane}, nil
}

// Close ends the connection.
func (e *Engine) Close() error { return e.docker.Close() }

// Unit is a container to keep.
type Unit struct {
	// Name is unique in the plane, as `tnt_x/iam`; Group is whose it is, as `plane` or a tenant's id.
	Name  string `json:"name"`
	Group string `json:"group"`
	// Release that its image was made of, for whoever asks; Image by its id.
	Release string `json:"release"`
	Image   string `json:"image"`
	// Args, Env: what the image's program is told. Neither holds a secret: who may ask the engine sees them.
	Args []string `json:"args"`
	Env  []string `json:"env"`
	// User and Groups, numeric.
	User   uint32   `json:"user"`
	Groups []uint32 `json:"groups"`
	// Mounts are directories of the machine.
	Mounts []Mount `json:"mounts"`
	// Links to networks; the first is there from the beginning.
	Links []Link `json:"links"`
	// Publish is the address of the machine that leads to Port of the container; the zero address is none.
	Publish netip.AddrPort `json:"publish"`
	Port    uint16         `json:"port"`
	// Healthy is a command that ends with 0 while it serves.
	Healthy []string `json:"healthy"`
	// Limits of what it may take.
	Limits Limits `json:"limits"`
	// SharedMemory in bytes; zero is the engine's own choice.
	SharedMemory int64 `json:"shared_memory"`
	// Interrupt asks it to end with SIGINT rather than SIGTERM; StopWithin is how long that may take.
	Interrupt  bool          `json:"interrupt"`
	StopWithin time.Duration `json:"stop_within"`
	// Resolves says that it may ask for names outside of its networks.
	Resolves bool `json:"resolves"`
}

// Mount is a directory of the machine in a container.
type Mount struct {
	From     string `json:"from"`
	To       string `json:"to"`
	ReadOnly bool   `json:"read_only"`
	// Own says that it is a filesystem of the container's own, which a container has to be made anew for.
	Own bool `json:"own,omitempty"`
}

// Link is a container's place in a network.
type Link struct {
	Network string     `json:"network"`
	Address netip.Addr `json:"address"`
}

// Limits bound a container.
type Limits struct {
	// Memory in bytes, swap included; NanoCPUs billionths of a CPU; PIDs processes and threads.
	Memory   int64 `json:"memory"`
	NanoCPUs int64 `json:"nano_cpus"`
	PIDs     int64 `json:"pids"`
}

// digest of a description, for the label.
func digest(of any) string {
	text, err := json.Marshal(of)
	if err != nil {
		panic(err) // no such value is ever given
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func (e *Engine) labels(group, name string, of any) map[string]string {
	return map[string]string{labelPlane: e.plane, labelGroup: group, labelName: name, labelSpec: digest(of)}
}

// mine selects what this plane made.
func (e *Engine) mine(more ...string) filters.Args {
	args := filters.NewArgs(filters.Arg("label", labelPlane+"="+e.plane))
	for _, l := range more {
		args.Add("label", l)
	}
	return args
}

// Apply has a container run as described, and says whether that changed anything. One that is described otherwise than it runs is stopped
// and made anew.
func (e *Engine) Apply(ctx context.Context, u Unit) (changed bool, err error) {
	have, err := e.find(ctx, u.Name)
	if err != nil {
		return false, err
	}
	if have != nil && have.Labels[labelSpec] == digest(u) {
		// Whoever made it may have been killed before all its links were there: the label says what it was to be.
		if changed, err = e.link(ctx, u, have); err != nil || have.State == container.StateRunning {
			return changed, err
		}
		if have.State == container.StateExited || have.State == container.StateCreated {
			return true, e.start(ctx, u, have.ID)
		}
	}
	if have != nil {
		if err := e.end(ctx, have.ID); err != nil {
			return true, err
		}
	}
	made, err := e.docker.ContainerCreate(ctx, e.config(u), hostConfig(u), firstLink(u), nil, e.thing(u.Name))
	if err != nil {
		return true, fmt.Errorf("make the container of %s: %w", u.Name, err)
	}
	for _, l := range u.Links[min(1, len(u.Links)):] {
		if err := e.connect(ctx, u, made.ID, l); err != nil {
			return true, err
		}
	}
	return true, e.start(ctx, u, made.ID)
}

// Running says whether a container of a name runs, however it is described.
func (e *Engine) Running(ctx context.Context, name string) (bool, error) {
	have, err := e.find(ctx, name)
	return have != nil && have.State == container.StateRunning, err
}

// Otherwise says whether a container runs that is described otherwise: Apply would end it.
func (e *Engine) Otherwise(ctx context.Context, u Unit) (bool, error) {
	have, err := e.find(ctx, u.Name)
	return have != nil && have.State == container.StateRunning && have.Labels[labelSpec] != digest(u), err
}

// Images are those that the plane's containers are made from, their ids by the names of containers.
func (e *Engine) Images(ctx context.Context) (map[string]string, error) {
	all, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: e.mine()})
	if err != nil {
		return nil, fmt.Errorf("ask the engine for the plane's containers: %w", err)
	}
	out := map[string]string{}
	for _, c := range all {
		out[c.Labels[labelName]] = c.ImageID
	}
	return out, nil
}

// link connects a container to those of its networks that it isn't in.
func (e *Engine) link(ctx context.Context, u Unit, have *container.Summary) (changed bool, err error) {
	for _, l := range u.Links {
		if have.NetworkSettings != nil && have.NetworkSettings.Networks[l.Network] != nil {
			continue
		}
		changed = true
		if err := e.connect(ctx, u, have.ID, l); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func (e *Engine) connect(ctx context.Context, u Unit, id string, l Link) error {
	if err := e.docker.NetworkConnect(ctx, l.Network, id, endpoint(l)); err != nil {
		return fmt.Errorf("connect %s to the network %s: %w", u.Name, l.Network, err)
	}
	return nil
}

func (e *Engine) start(ctx context.Context, u Unit, id string) error {
	if err := e.docker.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return fmt.Errorf("start the container of %s: %w", u.Name, err)
	}
	return nil
}

func (e *Engine) config(u Unit) *container.Config {
	stop := "SIGTERM"
	if u.Interrupt {
		stop = "SIGINT"
	}
	seconds := int(u.StopWithin.Seconds())
	id := strconv.FormatUint(uint64(u.User), 10)
	labels := e.labels(u.Group, u.Name, u)
	labels[labelRelease] = u.Release
	c := &container.Config{
		Image: u.Image, Cmd: u.Args, Env: u.Env, User: id + ":" + id, Labels: labels, StopSignal: stop, StopTimeout: &seconds,
	}
	if len(u.Healthy) > 0 {
		const every, within, patience, times = 20 * time.Second, 5 * time.Second, 30 * time.Second, 3
		c.Healthcheck = &container.HealthConfig{Test: append([]string{"CMD"}, u.Healthy...), Interval: every, Timeout: within, StartPeriod: patience, Retries: times}
	}
	if u.Publish.IsValid() {
		c.ExposedPorts = nat.PortSet{portOf(u): {}}
	}
	return c
}

func portOf(u Unit) nat.Port { return nat.Port(strconv.Itoa(int(u.Port)) + "/tcp") }

// nowhere is an address that is nobody's (RFC 5737): what asks there for a name gets no answer.
const nowhere = "203.0.113.1"

func hostConfig(u Unit) *container.HostConfig {
	pids := u.Limits.PIDs
	h := &container.HostConfig{
		ReadonlyRootfs: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, IpcMode: "private", ShmSize: u.SharedMemory,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped},
		Resources:     container.Resources{Memory: u.Limits.Memory, MemorySwap: u.Limits.Memory, NanoCPUs: u.Limits.NanoCPUs, PidsLimit: &pids},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}},
		// Whoever stands in two networks leads nobody from one into the other, and no network has IPv6 (sysctl net.ipv6).
		Sysctls: map[string]string{"net.ipv4.ip_forward": "0"},
	}
	h.Resources.Ulimits = []*container.Ulimit{{Name: "core"}}
	for _, g := range u.Groups {
		h.GroupAdd = append(h.GroupAdd, strconv.FormatUint(uint64(g), 10))
	}
	for _, m := range u.Mounts {
		h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.From, Target: m.To, ReadOnly: m.ReadOnly,
			BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}})
	}
	if !u.Resolves {
		h.DNS = []string{nowhere}
	}
	if u.Publish.IsValid() {
		h.PortBindings = nat.PortMap{portOf(u): {{HostIP: u.Publish.Addr().String(), HostPort: strconv.Itoa(int(u.Publish.Port()))}}}
	}
	if len(u.Links) > 0 {
		h.NetworkMode = container.NetworkMode(u.Links[0].Network)
	} else {
		h.NetworkMode = network.NetworkNone
	}
	return h
}

func firstLink(u Unit) *network.NetworkingConfig {
	if len(u.Links) == 0 {
		return nil
	}
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{u.Links[0].Network: endpoint(u.Links[0])}}
}

func endpoint(l Link) *network.EndpointSettings {
	return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: l.Address.String()}}
}

// thing is what a named thing of this plane is called in the engine.
func (e *Engine) thing(name string) string {
	out := []byte("a3-" + e.plane + "-" + name)
	for i, b := range out {
		if b == '/' {
			out[i] = '-'
		}
	}
	return string(out)
}

// find is a container of this plane by name; nil where there is none.
func (e *Engine) find(ctx context.Context, name string) (*container.Summary, error) {
	all, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: e.mine(labelName + "=" + name)})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// end stops a container in good order and removes it.
func (e *Engine) end(ctx context.Context, id string) error {
	if err := e.docker.ContainerStop(ctx, id, container.StopOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("stop a container: %w", err)
	}
	err := e.docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove a container: %w", err)
	}
	return nil
}

// Remove stops and removes containers by name, together. Those that aren't there are no fault.
func (e *Engine) Remove(ctx context.Context, names ...string) (changed bool, err error) {
	done := make(chan error, len(names))
	for _, name := range names {
		have, err := e.find(ctx, name)
		if err != nil {
			return changed, err
		}
		if have == nil {
			done <- nil
			continue
		}
		changed = true
		go func() { done <- e.end(ctx, have.ID) }()
	}
	for range names {
		err = errors.Join(err, <-done)
	}
	return changed, err
}

// Status is how a container is.
type Status struct {
	Name, Group string
	// ID of the container, PID of its program on the machine (0 for none), and its image.
	ID    string
	PID   int
	Image string
	// Release that its image was made of.
	Release string
	// State is the engine's word, as `running`, and Health `healthy`, `unhealthy`, `starting` or empty.
	State, Health string
	Since         time.Time
	Restarts      int
	// LastExit says how it ended the last time; empty when it never did.
	LastExit string
}

// Status of the plane's containers, or of one group's, in the order of names.
func (e *Engine) Status(ctx context.Context, group string) ([]Status, error) {
	args := e.mine()
	if group != "" {
		args = e.mine(labelGroup + "=" + group)
	}
	all, err := e.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	if err != nil {
		return nil, fmt.Errorf("ask the engine for the plane's containers: %w", err)
	}
	var out []Status
	for _, c := range all {
		info, err := e.docker.ContainerInspect(ctx, c.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s := Status{Name: c.Labels[labelName], Group: c.Labels[labelGroup], ID: c.ID, PID: info.State.Pid, Image: info.Image, Release: c.Labels[labelRelease], State: info.State.Status, Restarts: info.RestartCount}
		s.Since, _ = time.Parse(time.RFC3339Nano, info.State.StartedAt)
		if info.State.Health != nil {
			s.Health = info.State.Health.Status
		}
		if ended, err := time.Parse(time.RFC3339Nano, info.State.FinishedAt); err == nil && ended.Year() > 1 {
			s.LastExit = fmt.Sprintf("exit code %d", info.State.ExitCode)
			if info.State.OOMKilled {
				s.LastExit = "killed: it took more memory than it may"
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
