package sqs

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"a3os.app/libs/binding"
	"a3os.app/libs/id"
)

const (
	// setting is the variable by which a role is told of the queue.
	setting = "A3_QUEUE"
	// TagMark begins the names of the tags that a queue's mark stands in, from 1 on. A tag's value has room for 256 characters, and for
	// base64's among others, which the signed text is not made of.
	TagMark = "a3-mark-"
	mostTag = 256
	// mostTags is as many as the longest mark takes.
	mostTags = (binding.MostBytes*4/3 + mostTag - 1) / mostTag
)

// nameOf is the name of the queue with a URL, which ends in the account and the name.
func nameOf(where string) (string, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Count(strings.Trim(u.Path, "/"), "/") != 1 {
		return "", errors.New("a queue is named by its URL, as https://sqs.eu-central-1.amazonaws.com/123456789012/tnt_…-queue: check " + setting)
	}
	return path.Base(u.Path), nil
}

// OpenPlace opens the queue of owner, which where names by its URL, and whose jobs stand in a schema of the database. A queue without the
// owner's mark is refused.
func OpenPlace(ctx context.Context, cfg aws.Config, where, schema string, owner *binding.Owner) (*Place, error) {
	if owner == nil {
		return nil, errors.New("open the queue: it can't be opened without an owner")
	}
	name, err := nameOf(where)
	if err != nil {
		return nil, err
	}
	p, err := NewPlace(cfg, where, schema)
	if err != nil {
		return nil, err
	}
	h := &held{Place: p, name: name, owner: owner}
	if err := h.Prove(ctx); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	owner.Hold(h)
	return p, nil
}

// held is a queue that is its owner's.
type held struct {
	*Place
	name  string
	owner *binding.Owner
}

// Prove implements binding.Resource.
func (h *held) Prove(ctx context.Context) error {
	mark, err := readMark(ctx, h.client, h.url, h.name)
	if err != nil {
		return err
	}
	return h.owner.Check(binding.Mark{Kind: binding.Queue, Name: h.name}, mark, binding.Place{What: "queue " + strconv.Quote(h.name) + " of SQS", Setting: setting})
}

// Mark puts the tenant's mark on a queue that is there; where it is already it changes nothing, and another's is refused with
// [binding.ErrForeign].
func Mark(ctx context.Context, cfg aws.Config, where string, signer *binding.Signer, tenant id.Tenant) (changed bool, err error) {
	name, err := nameOf(where)
	if err != nil {
		return false, err
	}
	client := sqs.NewFromConfig(cfg)
	mark, err := signer.Sign(binding.Mark{Tenant: tenant, Kind: binding.Queue, Name: name})
	if err != nil {
		return false, err
	}
	found, err := readMark(ctx, client, where, name)
	switch {
	case err != nil:
		return false, err
	case found == mark:
		return false, nil
	case found != "":
		if m, bad := binding.Claimed(found); bad != nil || m.Tenant != tenant {
			return false, binding.Refuse(binding.ErrForeign, "queue %q of SQS carries the mark of %s, and not of %s: name another queue", name, m.Tenant, tenant)
		}
	}
	tags := make(map[string]string)
	for text := base64.StdEncoding.EncodeToString([]byte(mark)); text != ""; {
		n := min(len(text), mostTag)
		tags[TagMark+strconv.Itoa(len(tags)+1)], text = text[:n], text[n:]
	}
	if _, err := client.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: &where, Tags: tags}); err != nil {
		return false, fmt.Errorf("mark queue %s: %w", name, err)
	}
	return true, nil
}

// readMark is the text of a queue's mark, empty where it has none.
func readMark(ctx context.Context, client *sqs.Client, where, name string) (string, error) {
	out, err := client.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: &where})
	if err != nil {
		return "", fmt.Errorf("read the mark of queue %s: %w", name, err)
	}
	var text strings.Builder
	for n := 1; n <= mostTags; n++ {
		text.WriteString(out.Tags[TagMark+strconv.Itoa(n)])
	}
	mark, err := base64.StdEncoding.DecodeString(text.String())
	if err != nil {
		// Whoever checks it refuses what is no mark.
		return text.String(), nil //nolint:nilerr // see above
	}
	return string(mark), nil
}
