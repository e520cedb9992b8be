# The CPU-only addon where cmake is missing: npx node-gyp rebuild -C native/gyp, then
# KOTOBA_ADDON=native/gyp/build/Release/kotoba.node. Sources and flags come from CMakeLists.txt (isa.cjs).
{
  "target_defaults": {
    "include_dirs": [".."],
    "cflags": ["-Wall", "-Wextra", "-fvisibility=hidden"],
    "cflags_cc!": ["-std=gnu++17", "-fno-exceptions", "-fno-rtti"],
    "cflags_cc": ["-std=c++20", "-fvisibility-inlines-hidden"],
  },
  "targets": [
    {
      "target_name": "isa_plain",
      "type": "static_library",
      "sources": ["<!@(node isa.cjs isa-sources)"],
      "defines": ["KOTOBA_ISA=plain"],
      "cflags": ["<!@(node isa.cjs flags plain)"],
    },
    {
      "target_name": "kotoba",
      "sources": ["<!@(node isa.cjs sources)"],
      "include_dirs": ["<!@(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=9", "NODE_ADDON_API_DISABLE_DEPRECATED", "NAPI_CPP_EXCEPTIONS",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "KOTOBA_HAS_plain",
      ],
      "cflags_cc": ["-Wno-unused-parameter"],
      "dependencies": ["isa_plain"],
      "libraries": ["-ldl", "-lpthread"],
      "conditions": [["target_arch=='x64'", {
        "dependencies": ["isa_avx2", "isa_avxvnni", "isa_avx512", "isa_avx512vnni", "isa_amx"],
        "defines": [
          "KOTOBA_HAS_avx2", "KOTOBA_HAS_avxvnni", "KOTOBA_HAS_avx512", "KOTOBA_HAS_avx512vnni", "KOTOBA_HAS_amx",
        ],
      }]],
    },
  ],
  "conditions": [["target_arch=='x64'", {
    "targets": [
      {
        "target_name": "isa_avx2",
        "type": "static_library",
        "sources": ["<!@(node isa.cjs isa-sources)"],
        "defines": ["KOTOBA_ISA=avx2"],
        "cflags": ["<!@(node isa.cjs flags avx2)"],
      },
      {
        "target_name": "isa_avxvnni",
        "type": "static_library",
        "sources": ["<!@(node isa.cjs isa-sources)"],
        "defines": ["KOTOBA_ISA=avxvnni"],
        "cflags": ["<!@(node isa.cjs flags avxvnni)"],
      },
      {
        "target_name": "isa_avx512",
        "type": "static_library",
        "sources": ["<!@(node isa.cjs isa-sources)"],
        "defines": ["KOTOBA_ISA=avx512"],
        "cflags": ["<!@(node isa.cjs flags avx512)"],
      },
      {
        "target_name": "isa_avx512vnni",
        "type": "static_library",
        "sources": ["<!@(node isa.cjs isa-sources)"],
        "defines": ["KOTOBA_ISA=avx512vnni"],
        "cflags": ["<!@(node isa.cjs flags avx512vnni)"],
      },
      {
        "target_name": "isa_amx",
        "type": "static_library",
        "sources": ["<!@(node isa.cjs isa-sources)"],
        "defines": ["KOTOBA_ISA=amx"],
        "cflags": ["<!@(node isa.cjs flags amx)"],
      },
    ],
  }]],
}
