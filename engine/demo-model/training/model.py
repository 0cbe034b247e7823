"""The model as it is trained: transformers' Qwen3, written for speed on two cores."""

import math

from .shape import EPS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, MLP, THETA, VOCAB

def build_model():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Norm(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def forward(self, x):
            y = x.float()
            y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
            return (y * self.weight).to(x.dtype)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
            self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
            self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
            self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)
            self.q_norm, self.k_norm = Norm(HEAD_DIM), Norm(HEAD_DIM)

        def forward(self, x, cos, sin):
            b, t, _ = x.shape

            def heads(y, n, norm):
                y = y.view(b, t, n, HEAD_DIM)
                if norm is None:
                    return y.transpose(1, 2)
                y = norm(y).transpose(1, 2)
                y1, y2 = y.chunk(2, -1)
                return (y * cos + torch.cat((-y2, y1), -1) * sin).to(x.dtype)

            q = heads(self.q_proj(x), HEADS, self.q_norm)
            k = heads(self.k_proj(x), KV_HEADS, self.k_norm)
            v = heads(self.v_proj(x), KV_HEADS, None)
            k, v = (z.repeat_interleave(HEADS // KV_HEADS, 1) for z in (k, v))
            if t > 512 or not torch.is_grad_enabled():
                y = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=True)
            else:  # by hand, in strips that skip most of the masked half: a third faster here
                parts, cut = [], 128
                above = torch.full((cut, cut), -1e9).triu(1)
                for i in range(0, t, cut):
                    score = (q[:, :, i:i + cut] @ k[:, :, :i + cut].mT).float() * HEAD_DIM ** -0.5
                    score = torch.cat((score[..., :i], score[..., i:] + above[:, :score.shape[-1] - i]), -1)
                    parts.append(score.softmax(-1).to(v.dtype) @ v[:, :, :i + cut])
                y = torch.cat(parts, 2)
            return self.o_proj(y.transpose(1, 2).reshape(b, t, HEADS * HEAD_DIM))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj = nn.Linear(HIDDEN, MLP, bias=False)
            self.up_proj = nn.Linear(HIDDEN, MLP, bias=False)
            self.down_proj = nn.Linear(MLP, HIDDEN, bias=False)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.mlp = Attention(), Mlp()
            self.input_layernorm, self.post_attention_layernorm = Norm(HIDDEN), Norm(HIDDEN)

        def forward(self, x, cos, sin):
            x = x + self.self_attn(self.input_layernorm(x), cos, sin)
            return x + self.mlp(self.post_attention_layernorm(x))

    class Qwen3(nn.Module):
        """The same function and the same parameter names as transformers' Qwen3ForCausalLM."""

        def __init__(self):
            super().__init__()
            self.model = nn.Module()
            self.model.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
            self.model.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
            self.model.norm = Norm(HIDDEN)
            for name, p in self.named_parameters():
                if p.dim() == 2:
                    scale = 0.02 if "embed" in name else 0.5 / math.sqrt(p.shape[1])
                    nn.init.normal_(p, std=scale)
                    if name.endswith(("o_proj.weight", "down_proj.weight")):
                        nn.init.zeros_(p)

        def forward(self, ids, targets, mask):
            t = ids.shape[1]
            inv = THETA ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
            angle = torch.outer(torch.arange(t).float(), inv)
            angle = torch.cat((angle, angle), -1)
            cos, sin = angle.cos(), angle.sin()
            x = self.model.embed_tokens(ids)
            for layer in self.model.layers:
                x = layer(x, cos, sin)
            logits = F.linear(self.model.norm(x), self.model.embed_tokens.weight)
            loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
            mask = mask.flatten()
            return (loss * mask).sum() / mask.sum()

    return Qwen3()
