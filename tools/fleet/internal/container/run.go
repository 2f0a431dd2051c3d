package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
)

// Run runs a container to its end, removes it, and answers what it said and the code that it ended with.
func (e *Engine) Run(ctx context.Context, u Unit) (said string, code int, err error) {
	if have, err := e.find(ctx, u.Name); err != nil {
		return "", 0, err
	} else if have != nil {
		// A command that was killed left it.
		if err := e.end(ctx, have.ID); err != nil {
			return "", 0, err
		}
	}
	host := hostConfig(u)
	host.RestartPolicy = container.RestartPolicy{}
	made, err := e.docker.ContainerCreate(ctx, e.config(u), host, firstLink(u), nil, e.thing(u.Name))
	if err != nil {
		return "", 0, fmt.Errorf("make the container of %s: %w", u.Name, err)
	}
	defer func() {
		const patience = 30 * time.Second
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = e.docker.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true})
	}()
	ended, failed := e.docker.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := e.start(ctx, u, made.ID); err != nil {
		return "", 0, err
	}
	select {
	case err := <-failed:
		return "", 0, fmt.Errorf("wait for %s: %w", u.Name, err)
	case end := <-ended:
		code = int(end.StatusCode)
	}
	said, err = e.logs(ctx, made.ID, "all")
	return said, code, err
}

// Said is the last lines of what a container wrote.
func (e *Engine) Said(ctx context.Context, name string, lines int) (string, error) {
	have, err := e.find(ctx, name)
	if err != nil || have == nil {
		return "", err
	}
	return e.logs(ctx, have.ID, fmt.Sprint(lines))
}

func (e *Engine) logs(ctx context.Context, id, tail string) (string, error) {
	from, err := e.docker.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: tail})
	if err != nil {
		return "", err
	}
	defer from.Close()
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, from)
	return strings.TrimSpace(out.String()), err
}

// HasImage says whether the engine has an image.
func (e *Engine) HasImage(ctx context.Context, id string) (bool, error) {
	_, err := e.docker.ImageInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Load gives the engine an image, and refuses another one than was meant.
func (e *Engine) Load(ctx context.Context, id string, write func(io.Writer) error) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	res, err := e.docker.ImageLoad(ctx, r, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("give the engine an image: %w", err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = firstOf(err, res.Body.Close()); err != nil {
		return fmt.Errorf("give the engine an image: %w", err)
	}
	there, err := e.HasImage(ctx, id)
	if err == nil && !there {
		err = fmt.Errorf("the engine took an image and does not have %s: what it took is another", id)
	}
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Forget removes an image that nothing runs from; one that is still used, or isn't there, stays as it is.
func (e *Engine) Forget(ctx context.Context, id string) error {
	_, err := e.docker.ImageRemove(ctx, id, image.RemoveOptions{})
	if err != nil && !errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "conflict") {
		return err
	}
	return nil
}
