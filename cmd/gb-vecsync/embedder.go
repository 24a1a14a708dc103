package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/embed"
)

// embedderFlags say what makes the vectors. ingest, rebuild and search of one
// index need the same.
func embedderFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "embedder-url", EnvVars: []string{"GB_EMBEDDER_URL"}, Usage: "base `URL` of a server with OpenAI's embeddings API, as http://127.0.0.1:11434/v1 (default: the word vectors that are built in)"},
		&cli.StringFlag{Name: "embedder-dir", EnvVars: []string{"GB_EMBEDDER_DIR"}, Usage: "`DIR` of a Model2Vec model: model.safetensors and tokenizer.json"},
		&cli.StringFlag{Name: "embedder-model", EnvVars: []string{"GB_EMBEDDER_MODEL"}, Usage: "its `MODEL`"},
		&cli.IntFlag{Name: "embedder-dim", EnvVars: []string{"GB_EMBEDDER_DIM"}, Usage: "the model's `N` dimensions"},
		&cli.StringFlag{Name: "embedder-key-file", EnvVars: []string{"GB_EMBEDDER_KEY_FILE"}, Usage: "`FILE` with the key for it"},
		&cli.StringFlag{Name: "embedder-query-prefix", EnvVars: []string{"GB_EMBEDDER_QUERY_PREFIX"}, Usage: "`TEXT` that the model wants before a question"},
		&cli.StringFlag{Name: "embedder-document-prefix", EnvVars: []string{"GB_EMBEDDER_DOCUMENT_PREFIX"}, Usage: "`TEXT` that the model wants before what is searched"},
	}
}

// embedder is what the flags ask for.
func embedder(c *cli.Context) (embed.Embedder, error) {
	url, dir := c.String("embedder-url"), c.String("embedder-dir")
	if url != "" && dir != "" {
		return nil, cli.Usagef("--embedder-url and --embedder-dir: want one of them")
	}
	if dir != "" {
		m, err := embed.OpenModel2Vec(dir)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	if url == "" {
		if c.IsSet("embedder-model") || c.IsSet("embedder-key-file") {
			return nil, cli.Usagef("--embedder-model and --embedder-key-file want --embedder-url")
		}
		return embed.LoadLocal(), nil
	}
	o := embed.OpenAIOptions{URL: url, Model: c.String("embedder-model"), Dim: c.Int("embedder-dim"),
		QueryPrefix: c.String("embedder-query-prefix"), DocumentPrefix: c.String("embedder-document-prefix")}
	if file := c.String("embedder-key-file"); file != "" {
		key, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("embedder's key: %w", err)
		}
		o.Key = strings.TrimSpace(string(key))
	}
	e, err := embed.NewOpenAI(o)
	if err != nil {
		return nil, cli.Usagef("%w", err)
	}
	return e, nil
}

// documents embeds what an index asks for.
type documents struct{ embed.Embedder }

func (d documents) EmbedDocuments(ctx context.Context, texts []string) ([][]float32, error) {
	return d.Embed(ctx, embed.Document, texts)
}
